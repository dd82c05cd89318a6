"""The verbs that speak to a service: what they do, print, and never take as an argument."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from ckptmerge.cli import remote, studies
from ckptmerge.errors import ServiceError
from tests.integration.loopback import Service, serving

Verb = Callable[..., Result]
TOKEN = "a-token"  # noqa: S105 - of this test


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving() as listening:
        yield listening


@pytest.fixture
def verb(service: Service) -> Verb:
    app = typer.Typer()
    for function in (remote.push, remote.best, remote.pull):
        app.command()(function)
    app.add_typer(studies.app, name="study")

    def invoke(*arguments: str, **environment: str) -> Result:
        variables = {"CKPTMERGE_URL": service.url, **environment}
        return CliRunner().invoke(app, arguments, env=variables, catch_exceptions=False)

    return invoke


def answer(done: Result) -> Any:
    return json.loads(done.stdout)


def test_a_checkpoint_is_pushed_shown_and_pulled(verb: Verb, tmp_path: Path) -> None:
    folder = tmp_path / "step-50"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    assert answer(verb("push", str(folder), "--run", "olmo-1b", "--json"))["step"] == 50
    assert answer(verb("best", "olmo-1b", "--json"))["reason"] == "no study has been decided yet"
    out = tmp_path / "out"
    assert answer(verb("pull", "olmo-1b", "--out", str(out), "--json"))["out"] == str(out)
    assert (out / "model.safetensors").read_bytes() == b"weights"


def test_people_are_told_what_was_not_promoted(verb: Verb, tmp_path: Path) -> None:
    folder = tmp_path / "step-60"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    assert "step 60 of run olmo-1b is c_" in verb("push", str(folder), "--run", "olmo-1b").stdout
    assert "not promoted: no study" in verb("best", "olmo-1b").stdout
    said = verb("pull", "olmo-1b", "--out", str(tmp_path / "out")).stdout
    assert "the checkpoint, not promoted, of step 60" in said


def test_studies_are_listed_and_shown(verb: Verb) -> None:
    listed = answer(verb("study", "list", "--json"))
    assert [item["id"] for item in listed] == ["s_3", "s_2", "s_1"]
    assert "2 of 3" in verb("study", "list").stdout
    shown = answer(verb("study", "show", "s_2", "--json"))
    assert (shown["id"], [trial["trial"] for trial in shown["trials"]]) == ("s_2", [0])
    assert "uniform-2" in verb("study", "show", "s_2").stdout


def test_the_token_comes_from_the_environment(verb: Verb, service: Service) -> None:
    service.token = TOKEN
    try:
        with pytest.raises(ServiceError, match="who asks"):
            verb("study", "list")
        verb("study", "list", CKPTMERGE_TOKEN=TOKEN)
    finally:
        service.token = None
    assert verb("study", "list", "--token", TOKEN).exit_code == 2
