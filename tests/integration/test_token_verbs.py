"""The verbs of tokens: create shows a secret once, or writes it where nobody else can read it."""

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from ckptmerge.cli import studies, tokens
from ckptmerge.errors import OutputExistsError, ServiceError
from tests.integration.conducted_service import ConductedService, conducted_service

Verb = Callable[..., Result]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ConductedService]:
    """A service that is open."""
    with conducted_service(tmp_path / "data") as running:
        yield running


@pytest.fixture
def verb(service: ConductedService) -> Verb:
    app = typer.Typer()
    app.add_typer(tokens.app, name="token")
    app.add_typer(studies.app, name="study")

    def invoke(*arguments: str, token: str = "") -> Result:
        variables = {"CKPTMERGE_URL": service.url, "CKPTMERGE_TOKEN": token}
        return CliRunner().invoke(app, arguments, env=variables, catch_exceptions=False)

    return invoke


def made(done: Result) -> dict[str, str]:
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_tokens_are_made_listed_used_and_revoked(verb: Verb) -> None:
    admin = made(verb("token", "create", "me", "--scope", "admin", "--json"))
    with pytest.raises(ServiceError, match="asks for a token"):
        verb("study", "list")
    assert verb("study", "list", token=admin["token"]).exit_code == 0
    said = verb(
        "token", "create", "job", "--scope", "checkpoint:write", "--scope", "trial",
        "--expires", "30d", token=admin["token"],
    )  # fmt: skip
    [secret] = [line for line in said.stdout.splitlines() if line.startswith("ckm_")]
    assert "shown once" in said.stderr
    listed = json.loads(verb("token", "list", "--json", token=admin["token"]).stdout)
    assert [(t["name"], t["scopes"]) for t in listed] == [
        ("me", ["admin"]), ("job", ["checkpoint:write", "trial"]),
    ]  # fmt: skip
    assert "token" not in listed[1]
    table = verb("token", "list", token=admin["token"]).stdout
    assert secret not in table
    assert verb("study", "list", token=secret).exit_code == 0
    ended = verb("token", "revoke", listed[1]["id"], token=admin["token"]).stdout
    assert "is revoked" in ended
    with pytest.raises(ServiceError, match="revoked"):
        verb("study", "list", token=secret)


def test_people_are_told_that_the_service_was_open(verb: Verb) -> None:
    said = verb("token", "create", "me", "--scope", "admin")
    assert "so far it was open" in said.stderr


def test_a_token_can_go_to_a_file_that_nobody_else_can_read(verb: Verb, tmp_path: Path) -> None:
    file = tmp_path / "token"
    said = verb("token", "create", "me", "--scope", "admin", "--out", str(file))
    secret = file.read_text()
    assert secret.strip() not in said.output
    assert secret.endswith("\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert verb("study", "list", token=secret.strip()).exit_code == 0


def test_a_file_that_is_there_is_neither_written_over_nor_a_reason_to_lose_a_token(
    verb: Verb, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("mine")
    with pytest.raises(OutputExistsError):
        verb("token", "create", "me", "--scope", "admin", "--out", str(tmp_path / "token"))
    assert (tmp_path / "token").read_text() == "mine"
    assert verb("study", "list").exit_code == 0, "no token was made"


def test_where_no_token_is_made_no_file_is_left(verb: Verb, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="admin"):
        verb("token", "create", "me", "--scope", "read", "--out", str(tmp_path / "token"))
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize("time", ["30", "d", "0d", "-1d", "30 d", "1y", "１d"])
def test_a_time_that_is_none_is_misuse(verb: Verb, time: str) -> None:
    done = verb("token", "create", "me", "--scope", "admin", "--expires", time)
    assert done.exit_code == 2
    assert verb("study", "list").exit_code == 0, "no token was made"
