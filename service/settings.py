"""Settings of the service: from a file, the environment and the command line, checked at start."""

import ipaddress
from collections.abc import Mapping, Sequence, Set
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from ckptmerge.config.study import StudySpec
from ckptmerge.domain.run import RESERVED
from ckptmerge.errors import RefusedError
from ckptmerge.storage import postgres_url
from ckptmerge.wire.resource import RunName
from ckptmerge.wire.runs import WindowPolicySpec

ENVIRONMENT = "CKPTMERGE_"
"""How the names of environment variables begin; lists are separated by commas."""

SHORTEST_TOKEN = 16
"""Characters. Whoever can reach the service may guess as often as they like."""

_PATHS = frozenset(
    {"data", "watch", "source_roots", "held_out", "tls_certificate", "tls_key"},
)
_NESTED = frozenset({"limits", "study", "window"})
_BIND = frozenset({"host", "token", "tls_certificate", "tls_key", "behind_proxy"})
"""What decides whether others can reach the service, and how safely."""
_LISTS = frozenset({"watch", "source_roots", "allowed_hosts", "devices"})


class ConfigurationError(RefusedError):
    """The service will not start like this; `serve` ends with exit code 78 (EX_CONFIG)."""

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)
        """Everything that is wrong, one by one."""


class Deadlines(BaseModel):
    """How long the service waits for clients. All are seconds unless they say otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head_seconds: float = Field(default=10.0, gt=0)
    """For the head of a request, from its first byte; and for that byte on a new connection."""
    keep_alive_seconds: int = Field(default=30, gt=0)
    """For the next request on a connection: longer than a worker's pause between heartbeats, so
    that it does not connect anew for each."""
    json_seconds: float = Field(default=60.0, gt=0)
    """For all of a body that is read into memory."""
    silence_seconds: float = Field(default=30.0, gt=0)
    """For the next bytes of a body that is stored as it comes."""
    slowest_body: int = Field(default=64 * 2**10, ge=0)
    """Bytes a second that such a body must bring; 0 for any. What the disk takes is not counted."""
    slow_seconds: float = Field(default=30.0, gt=0)
    """Over which the speed of a body is judged, again and again."""
    stalled_seconds: float = Field(default=120.0, gt=0)
    """For a client to take more of an answer that is on its way to it."""


class Limits(Deadlines):
    """How much the service takes in at once, for how long, and what it keeps free."""

    largest_blob: int = Field(default=2**40, gt=0)
    """Bytes of one uploaded file."""
    largest_json: int = Field(default=16 * 2**20, gt=0)
    """Bytes of a body that is read into memory."""
    largest_held_out: int = Field(default=2**30, gt=0)
    """Bytes of one held-out set."""
    reserve: int = Field(default=2**30, ge=0)
    """Bytes of the disk that uploads leave free: the database needs room to record a refusal."""
    watermark: int = Field(default=4 * 2**30, ge=0)
    """Free bytes of the disk below which what retention has let go is deleted without grace."""
    lease_ttl: float = Field(default=60.0, gt=0)
    """Seconds that a task stays with a worker that does not answer."""
    wrong_tokens: int = Field(default=10, gt=0)
    """Wrong tokens a minute that an address may bring; after that it has to wait."""
    longest_task: float = Field(default=86_400.0, gt=0)
    """Seconds that a task stays with a worker that answers and never comes to an end."""
    quarantine: float = Field(default=600.0, gt=0)
    """Seconds without work for a worker that fails again and again at what others can do."""
    blob_grace: float = Field(default=86_400.0, ge=0)
    """Seconds that a file which nothing names stays, from when it was last uploaded or named."""
    upload_age: float = Field(default=86_400.0, gt=0)
    """Seconds that an upload in pieces may take; what has come of an older one is removed."""
    open_uploads: int = Field(default=256, gt=0)
    """Uploads in pieces that may be under way at once."""
    uploads_at_once: int = Field(default=64, gt=0)
    """Requests that bring files, at once; others are told to come again, as with all these."""
    downloads_at_once: int = Field(default=256, gt=0)
    """Requests that take files away."""
    waiting_at_once: int = Field(default=512, gt=0)
    """Workers that wait for work, and clients that follow events."""
    requests_at_once: int = Field(default=128, gt=0)
    """Other requests."""
    connections: int = Field(default=2048, gt=0)
    """Connections, idle ones too; whoever comes on another is told to come again."""


def _plain_host(name: str) -> str:
    if not name or any(sign in name for sign in "*/@ []") or name.count(":") == 1:
        raise ValueError("give a host name or address without scheme, port, brackets or wildcard")
    return name.lower()


def _free_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is reserved; choose another")
    return name


def _postgres(url: str) -> str:
    postgres_url.parsed(url)
    return url


Host = Annotated[str, AfterValidator(_plain_host)]
DatabaseUrl = Annotated[
    str, AfterValidator(_postgres), PlainSerializer(postgres_url.without_secrets)
]
Device = Annotated[str, Field(pattern=r"^[a-z]+(:[0-9]+)?$")]


class Settings(BaseModel):
    """What `ckptmerge serve` runs with."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    data: Path = Path("ckptmerge-data")
    """Folder of the database and the blobs; one server at a time."""
    database: DatabaseUrl | None = Field(default=None, repr=False)
    """PostgreSQL database of the records, ``postgresql://user@host/name``; SQLite in the data
    folder if None. A password stands in the environment variable alone, or in libpq's own file."""
    host: Host = "127.0.0.1"
    port: int = Field(default=8117, ge=0, le=65535)
    """0 takes any free port."""
    devices: tuple[Device, ...] = Field(default=("cpu",), min_length=1)
    """Where models run: ``cpu``, or ``cuda:0`` and so on."""
    workers: int | None = Field(default=None, ge=0)
    """Worker processes started beside the service, on these devices in turn; one each if None."""
    watch: tuple[Path, ...] = ()
    """Folders whose settling checkpoints are registered."""
    source_roots: tuple[Path, ...] = ()
    """Folders beneath which a ``source`` may be read."""
    run: Annotated[RunName, AfterValidator(_free_name)] | None = None
    """Run that watched checkpoints belong to where nothing else says so."""
    held_out: Path | None = None
    """Documents that judge runs which name no held-out set of their own."""
    study: StudySpec = StudySpec()
    """How to search where a run does not say so itself; from a file alone."""
    window: WindowPolicySpec = WindowPolicySpec()
    """Which checkpoints a study is opened over where a run does not say so; from a file alone."""
    token: Annotated[str, PlainSerializer(lambda _: "[redacted]")] | None = Field(
        default=None, min_length=1, pattern=r"^[A-Za-z0-9._~+/-]+=*$", repr=False
    )
    """Bearer token (RFC 6750, section 2.1) that every request must bring; None asks for none."""
    behind_proxy: bool = False
    """Whether a proxy on this machine ends TLS; its X-Forwarded headers are believed then."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[Host, ...] = ()
    """Further names by which clients may call the service."""
    limits: Limits = Limits()

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """The device of each worker that the service starts."""
        count = len(self.devices) if self.workers is None else self.workers
        return tuple(islice(cycle(self.devices), count))

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together; give both or neither")
        return self


def load_settings(
    *,
    environ: Mapping[str, str],
    config: Path | None = None,
    given: Mapping[str, object] | None = None,
) -> Settings:
    """Put the settings together: defaults < file < environment < what was given.

    Args:
        environ: Environment variables; ``CKPTMERGE_SOURCE_ROOTS=/a,/b`` is ``source_roots``,
            ``CKPTMERGE_LARGEST_BLOB`` is ``limits.largest_blob``. Other variables are ignored.
        config: A YAML file; relative paths in it are relative to its folder.
        given: Options of the command line; None means that the option was not given.

    Raises:
        ConfigurationError: a source cannot be read or has a field that is unknown or wrong. The
            message names source and field, and never the value: it may be a secret.
    """
    file = {} if config is None else _from_file(config)
    variables = _from_environment(environ)
    options = {name: value for name, value in (given or {}).items() if value is not None}
    misplaced = [
        f"{source} holds a token, where others may read it; "
        f"set it as the environment variable {ENVIRONMENT}TOKEN instead"
        for source, values in ((f"{config}", file), ("the command line", options))
        if "token" in values
    ]
    misplaced += [
        f"{source} holds the password of a database, where others may read it; set the address as "
        f"the environment variable {ENVIRONMENT}DATABASE instead"
        for source, values in ((f"{config}", file), ("the command line", options))
        if _is_secret_address(values.get("database"))
    ]
    for values in (file, options):
        values.pop("token", None)
    raw = {**file, **variables, **options}
    limits = [_part(source, "limits") for source in (file, variables, options)]
    # What is no mapping is left for the validation to name, among all else that is wrong.
    raw["limits"] = next(
        (part for part in limits if not isinstance(part, Mapping)),
        {
            name: value
            for part in limits
            if isinstance(part, Mapping)
            for name, value in part.items()
        },
    )
    return _validated(raw, config, misplaced)


def require_safe_bind(settings: Settings) -> None:
    """Check that a service which others can reach asks who they are, and cannot be overheard.

    Raises:
        ConfigurationError: the host is not a loopback address, and there is no token of
            ``SHORTEST_TOKEN`` characters, or no TLS, be it our own or a proxy's.
    """
    if is_loopback(settings.host):
        return
    missing = []
    if settings.token is None:
        missing.append(f"a token (set {ENVIRONMENT}TOKEN)")
    elif len(settings.token) < SHORTEST_TOKEN:
        missing.append(f"a token of at least {SHORTEST_TOKEN} characters (set {ENVIRONMENT}TOKEN)")
    if settings.tls_certificate is None and not settings.behind_proxy:
        missing.append("TLS (tls_certificate and tls_key, or behind_proxy where a proxy ends it)")
    if missing:
        raise ConfigurationError(
            f"{settings.host} can be reached from other machines, so it needs "
            f"{' and '.join(missing)}; or serve on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach ``host``; a name other than localhost cannot say."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _from_file(path: Path) -> dict[str, object]:
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read the settings in {path}: {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{path} must hold names and values, such as `port: 8117`")
    return {
        name: _beneath(path.parent, value) if name in _PATHS else value
        for name, value in raw.items()
    }


def _beneath(folder: Path, value: object) -> object:
    if isinstance(value, list):
        return [_beneath(folder, item) for item in value]
    return folder / Path(value).expanduser() if isinstance(value, str) else value


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    # An empty variable is how a shell script or a compose file leaves one out.
    present = {name: value for name, value in environ.items() if value}
    found: dict[str, object] = {}
    for field in Settings.model_fields:
        value = present.get(f"{ENVIRONMENT}{field.upper()}")
        if value is not None and field not in _NESTED:
            found[field] = value.split(",") if field in _LISTS else value
    found["limits"] = {
        field: present[f"{ENVIRONMENT}{field.upper()}"]
        for field in Limits.model_fields
        if f"{ENVIRONMENT}{field.upper()}" in present
    }
    return found


def _is_secret_address(value: object) -> bool:
    try:
        return isinstance(value, str) and postgres_url.has_secret(value)
    except ValueError:  # no address at all, which the validation says
        return False


def _part(source: Mapping[str, object], name: str) -> object:
    part = source.get(name) or {}
    return part.model_dump(exclude_unset=True) if isinstance(part, Limits) else part


def _validated(
    raw: Mapping[str, object], config: Path | None, misplaced: Sequence[str]
) -> Settings:
    """Make settings of what was found, or say everything that is wrong with it.

    Args:
        raw: Names and values.
        config: The file that some of them came from.
        misplaced: What is wrong with where they came from.
    """
    problems = list(misplaced)
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        wrong = error.errors(include_input=False)
        problems += [
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in wrong
        ]
        problems += _also_unsafe(raw, {item["loc"][0] if item["loc"] else None for item in wrong})
    else:
        if not problems:
            return settings
        problems += _also_unsafe(raw, frozenset())
    sources = f"{config}, {ENVIRONMENT}… variables" if config else f"{ENVIRONMENT}… variables"
    raise ConfigurationError(
        f"cannot serve with these settings ({sources} and options): {'; '.join(problems)}",
        problems=problems,
    )


def _also_unsafe(raw: Mapping[str, object], wrong: Set[int | str | None]) -> list[str]:
    """Say whether what is right among the settings would make a bind that is not safe."""
    if wrong & {None, *_BIND}:
        return []
    sound = {name: value for name, value in raw.items() if name not in wrong}
    try:
        require_safe_bind(Settings.model_validate(sound))
    except ConfigurationError as error:
        return [str(error)]
    return []
