"""check-config says everything that is wrong at once, and never a secret."""

import json
from pathlib import Path

import pytest
import yaml

from ckptmerge.cli.main import run
from service.settings import Settings

TOKEN = "mbo_" + "0123456789ABCDEF"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def check(config: Path, *more: str) -> int:
    return run(["check-config", "--config", str(config), *more])


def test_everything_that_is_wrong_is_said_at_once(config: Path, capsys) -> None:
    config.write_text(
        f"prot: 1\nport: 70000\nhost: 192.168.1.2\nlimits: 3\ntoken: {TOKEN}\nworkers: -1\n"
    )
    assert check(config) == 78
    answer = capsys.readouterr()
    assert answer.out == ""
    said = answer.err.splitlines()
    assert len(said) == 6
    for named in ("holds a token", "prot:", "port:", "limits:", "workers:", "192.168.1.2 can be"):
        assert any(named in line for line in said), named
    assert TOKEN not in answer.err
    assert "needs a token (set" in answer.err, "one that may not be there is none"


def test_an_unsafe_bind_is_said_although_nothing_else_is_wrong(config: Path, capsys) -> None:
    config.write_text("host: 192.168.1.2\n")
    assert check(config, "--json") == 78
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "a token" in problem
    assert "TLS" in problem


def test_a_bind_that_is_wrong_in_itself_is_not_called_unsafe(config: Path, capsys) -> None:
    config.write_text("host: 'http://a'\n")
    assert check(config) == 78
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("ckptmerge: host:")


def test_a_token_that_is_wrong_is_not_called_missing_too(config, capsys, monkeypatch) -> None:
    monkeypatch.setenv("CKPTMERGE_TOKEN", "with space" * 3)
    config.write_text("host: 192.168.1.2\nbehind_proxy: true\n")
    assert check(config) == 78
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("ckptmerge: token:")


def test_the_effective_settings_are_shown_without_the_token(
    config: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("CKPTMERGE_TOKEN", TOKEN)
    monkeypatch.setenv("CKPTMERGE_LARGEST_JSON", "5")
    config.write_text("port: 9000\nwatch: [runs]\n")
    assert check(config) == 0
    text = capsys.readouterr().out
    shown = yaml.safe_load(text)
    assert TOKEN not in text
    assert (shown["token"], shown["port"], shown["limits"]["largest_json"]) == (
        "[redacted]", 9000, 5,
    )  # fmt: skip
    assert shown["watch"] == [str(config.parent / "runs")]
    assert shown.keys() == Settings.model_fields.keys()
    assert check(config, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"problems": [], "settings": shown}


def test_a_file_that_is_not_there_is_a_problem(config: Path, capsys) -> None:
    assert check(config) == 78
    assert "cannot read" in capsys.readouterr().err
