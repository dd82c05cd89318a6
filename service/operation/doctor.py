"""Looking whether a service would run well here, without changing anything."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from service.operation.findings import Finding, Verdict
from service.operation.look_at_data import look_at_data
from service.operation.look_at_database import look_at_database
from service.operation.look_at_inputs import look_at_inputs
from service.operation.look_at_machine import look_at_machine, look_at_torch
from service.settings import ConfigurationError, Settings, load_settings, require_safe_bind


def examine(
    *, environ: Mapping[str, str], config: Path | None, data: Path | None, now: float
) -> Iterator[Finding]:
    """Look at the machine, and at all that the settings name; findings come as they are made.

    Args:
        environ: Environment variables.
        config: A YAML file with settings.
        data: The data folder, where it is not the settings' one.
        now: Seconds since 1970, as this machine's clock says.
    """
    yield from look_at_machine(now)
    try:
        settings = load_settings(environ=environ, config=config, given={"data": data})
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding(
                "settings", Verdict.FAIL, problem, "mend this; nothing else was looked at"
            )
        return
    yield _bind(settings)
    yield from look_at_data(settings, now)
    yield from look_at_database(settings.database)
    yield from look_at_inputs(settings)
    yield from look_at_torch(settings.worker_devices)


def _bind(settings: Settings) -> Finding:
    try:
        require_safe_bind(settings)
    except ConfigurationError as error:
        return Finding(
            "access", Verdict.FAIL, str(error), "mend it before the service starts; it refuses to"
        )
    asked = "asks for a token" if settings.token else "asks for no token"
    return Finding("access", Verdict.OK, f"{settings.host} {asked}")
