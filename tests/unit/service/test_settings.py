"""Settings say what is wrong before anything listens, and never say a secret."""

from pathlib import Path

import pytest

from service.settings import (
    SHORTEST_TOKEN,
    ConfigurationError,
    Limits,
    Settings,
    load_settings,
    require_safe_bind,
)

TOKEN = "t" * SHORTEST_TOKEN


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    path.write_text(
        "port: 1000\nworkers: 2\ndata: store\nwatch: [runs, /absolute]\n"
        "limits: {reserve: 5, lease_ttl: 30}\n"
    )
    return path


def test_without_any_source_it_serves_on_loopback_only() -> None:
    settings = load_settings(environ={})
    assert (settings.host, settings.port) == ("127.0.0.1", 8117)
    assert settings.limits == Limits()
    require_safe_bind(settings)


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(config: Path) -> None:
    settings = load_settings(
        environ={"CKPTMERGE_PORT": "2000", "CKPTMERGE_HOST": "localhost"},
        config=config,
        given={"host": "::1", "held_out": None},
    )
    assert (settings.workers, settings.port, settings.host) == (2, 2000, "::1")
    assert settings.held_out is None


def test_limits_are_put_together_one_by_one(config: Path) -> None:
    settings = load_settings(environ={"CKPTMERGE_RESERVE": "7"}, config=config)
    assert settings.limits == Limits(reserve=7, lease_ttl=30)


def test_paths_in_a_file_are_relative_to_it(config: Path) -> None:
    settings = load_settings(environ={}, config=config)
    assert settings.data == config.parent / "store"
    assert settings.watch == (config.parent / "runs", Path("/absolute"))


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    settings = load_settings(
        environ={"CKPTMERGE_SOURCE_ROOTS": "/a,/b", "CKPTMERGE_ALLOWED_HOSTS": "Merge.Example"}
    )
    assert settings.source_roots == (Path("/a"), Path("/b"))
    assert settings.allowed_hosts == ("merge.example",)


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert load_settings(environ={"CKPTMERGE_TOKEN": "", "CKPTMERGE_PORT": ""}) == Settings()


def test_a_token_comes_from_the_environment_alone(config: Path) -> None:
    assert load_settings(environ={"CKPTMERGE_TOKEN": TOKEN}).token == TOKEN
    config.write_text("token: abcdefghijklmnopqrstuvwxyz\n")
    with pytest.raises(ConfigurationError, match="CKPTMERGE_TOKEN") as refused:
        load_settings(environ={}, config=config)
    assert "abcdef" not in str(refused.value)
    with pytest.raises(ConfigurationError, match="command line"):
        load_settings(environ={}, given={"token": TOKEN})


@pytest.mark.parametrize("token", ["with space" * 3, "new\nline" * 3, "schlüssel" * 3])
def test_a_refused_token_is_not_repeated(token: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(environ={"CKPTMERGE_TOKEN": token})
    assert "token" in str(refused.value)
    assert token not in f"{refused.value} {refused.value.__cause__}"


def test_a_token_shows_up_nowhere_the_settings_are_printed() -> None:
    settings = Settings(token=TOKEN)
    assert TOKEN not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot: 1", "prot"),
        ("port: 70000", "port"),
        ("workers: -1", "workers"),
        ("limits: {largest_blobb: 1}", "limits.largest_blobb"),
        ("limits: 3", "limits"),
        ("run: Best", "run"),
        ("run: v1", "reserved"),
        ("allowed_hosts: ['*']", "wildcard"),
        ("allowed_hosts: ['http://a']", "scheme"),
        ("host: '127.0.0.1:80'", "port"),
        ("tls_key: key.pem", "both or neither"),
        ("- 1", "names and values"),
        ("a: [", "cannot read"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(config: Path, text: str, named: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigurationError, match=named) as refused:
        load_settings(environ={}, config=config)
    assert str(config) in str(refused.value) or "limits" in str(refused.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml"):
        load_settings(environ={}, config=tmp_path / "nothing.yaml")


CERTIFICATE = {"tls_certificate": Path("c.pem"), "tls_key": Path("k.pem")}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost", "LOCALHOST"])
def test_a_loopback_address_needs_no_token(host: str) -> None:
    require_safe_bind(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "merge.example", "127.example"])  # noqa: S104 these are refused
@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ({}, "a token .* and TLS"),
        ({"token": TOKEN}, "needs TLS"),
        ({"behind_proxy": True}, "needs a token"),
        (CERTIFICATE, "needs a token"),
        ({"token": TOKEN[1:], "behind_proxy": True}, "at least 16 characters"),
    ],
)
def test_a_reachable_address_needs_a_token_and_tls(
    host: str, more: dict[str, object], missing: str
) -> None:
    with pytest.raises(ConfigurationError, match=missing):
        require_safe_bind(Settings.model_validate({"host": host, **more}))


@pytest.mark.parametrize("more", [{"behind_proxy": True}, CERTIFICATE])
def test_a_reachable_address_with_both_is_served(more: dict[str, object]) -> None:
    require_safe_bind(Settings.model_validate({"host": "192.168.1.2", "token": TOKEN, **more}))


@pytest.mark.parametrize(
    ("given", "devices"),
    [
        ({}, ("cpu",)),
        ({"workers": 2}, ("cpu", "cpu")),
        ({"workers": 0}, ()),
        ({"devices": ("cuda:0", "cuda:1")}, ("cuda:0", "cuda:1")),
        ({"devices": ("cuda:0", "cuda:1"), "workers": 3}, ("cuda:0", "cuda:1", "cuda:0")),
    ],
)
def test_one_worker_is_started_a_device_unless_told_otherwise(given, devices) -> None:
    assert load_settings(environ={}, given=given).worker_devices == devices


def test_devices_come_from_the_environment_too() -> None:
    settings = load_settings(environ={"CKPTMERGE_DEVICES": "cuda:0,cuda:1"})
    assert settings.worker_devices == ("cuda:0", "cuda:1")
    with pytest.raises(ConfigurationError, match="devices"):
        load_settings(environ={"CKPTMERGE_DEVICES": "gpu 0"})


DATABASE = "postgresql://me:hidden@db.example:5433/merges?sslmode=verify-full"


def test_the_address_of_a_database_shows_up_without_its_password() -> None:
    settings = load_settings(environ={"CKPTMERGE_DATABASE": DATABASE})
    assert settings.database == DATABASE
    assert "hidden" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    shown = settings.model_dump(mode="json")["database"]
    assert shown == DATABASE.replace("hidden", "***")


@pytest.mark.parametrize("hiding", ["password=hidden", "sslpassword=hidden"])
def test_a_password_among_the_parameters_is_one_too(hiding: str, config: Path) -> None:
    url = f"postgresql://me@db.example/merges?{hiding}"
    assert "hidden" not in Settings(database=url).model_dump_json()
    config.write_text(f"database: {url}\n")
    with pytest.raises(ConfigurationError, match="CKPTMERGE_DATABASE") as refused:
        load_settings(environ={}, config=config)
    assert "hidden" not in str(refused.value)


def test_a_database_may_stand_in_a_file_and_its_password_may_not(config: Path) -> None:
    config.write_text("database: postgresql:///merges\n")
    assert load_settings(environ={}, config=config).database == "postgresql:///merges"
    config.write_text(f"database: {DATABASE}\n")
    with pytest.raises(ConfigurationError, match="holds the password of a database") as refused:
        load_settings(environ={}, config=config)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["mysql://me:hidden@host/db", "postgresql://me:hidden@host", "hidden", "postgresql://["]
)
def test_a_refused_database_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"database: .*postgresql://user@host") as refused:
        load_settings(environ={"CKPTMERGE_DATABASE": url})
    assert "hidden" not in f"{refused.value} {refused.value.__cause__}"
