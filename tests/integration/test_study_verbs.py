"""Verbs about studies, and pulling any revision, against a service whose studies the tests move."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from ckptmerge.cli import remote, studies
from ckptmerge.client.client import Client
from ckptmerge.errors import InvalidInputError, MissingError, ServiceError
from ckptmerge.storage.records import ArtifactRecord
from tests.integration.conducted_service import ConductedService, conducted_service

Verb = Callable[..., Result]


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[ConductedService]:
    """A run of two checkpoints that has promoted a merge of them; every test ends what it opens."""
    with conducted_service(tmp_path_factory.mktemp("service")) as running:
        running.world.arrive(100)
        running.world.arrive(200)
        running.world.conclude()
        yield running


@pytest.fixture
def verb(service) -> Verb:
    app = typer.Typer()
    app.command()(remote.pull)
    app.add_typer(studies.app, name="study")

    def invoke(*arguments: str) -> Result:
        variables = {"CKPTMERGE_URL": service.url}
        return CliRunner().invoke(app, arguments, env=variables, catch_exceptions=False)

    return invoke


@pytest.fixture
def merge(service) -> ArtifactRecord:
    return next(a for a in service.world.all(ArtifactRecord) if a.promoted)


def answer(done: Result) -> Any:
    assert done.exit_code == 0
    return json.loads(done.stdout)


# --------------------------------------------------------------------------- studies


def test_a_study_is_opened_and_cancelled_by_hand(verb, service) -> None:
    said = ("--steps", "100,200", "--seed", "5", "--budget", "9", "--json")
    opened = answer(verb("study", "open", "run", *said))
    assert (opened["steps"], opened["seed"], opened["budget"]) == ([100, 200], 5, 9)
    assert opened["dtype"] == service.world.studies()[0].spec.dtype
    assert answer(verb("study", "cancel", opened["id"], "--json"))["state"] == "cancelled"
    with pytest.raises(ServiceError, match="nothing is left to end"):
        verb("study", "cancel", opened["id"])


def test_a_study_that_cannot_be_opened_is_refused_with_the_reason(verb) -> None:
    with pytest.raises(ServiceError, match="oldest first"):
        verb("study", "open", "run", "--steps", "200,100")
    with pytest.raises(InvalidInputError, match="budget"):
        verb("study", "open", "run", "--window", "2", "--budget", "0")
    assert verb("study", "open", "run", "--steps", "100,two").exit_code == 2


@pytest.mark.parametrize("by", ["id", "run"])
def test_a_study_is_watched_to_its_verdict(verb, service, by) -> None:
    opened = answer(verb("study", "open", "run", "--window", "2", "--json"))
    worker = Thread(target=service.world.conclude)
    worker.start()
    watched = verb("study", "watch", opened["id"] if by == "id" else "run", "--every", "0.1")
    worker.join()
    assert watched.exit_code == 0
    lines = watched.stdout.splitlines()
    trials = [line for line in lines if line.startswith("trial ")]
    assert [line.split()[1] for line in trials] == [str(n) for n in range(len(trials))]
    assert len(trials) == sum(s["id"] == opened["id"] and s["observed"] for s in listed(verb))
    assert "newest" in trials[0]
    assert "bits per byte" in trials[0]
    assert lines[-1].startswith("decided: nothing promoted")


def test_a_study_that_is_over_is_told_at_once(verb, service) -> None:
    first = service.world.studies()[0]
    told = answer(verb("study", "watch", first.id, "--json"))
    assert (told["id"], told["state"]) == (first.id, "decided")
    assert told["verdict"]["promoted"]
    assert len(told["trials"]) == told["observed"]


def test_watching_stops_on_ctrl_c_and_the_study_goes_on(verb, service, monkeypatch) -> None:
    opened = answer(verb("study", "open", "run", "--window", "2", "--json"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client.watch, "__kwdefaults__", {"every": 1.0, "sleep": interrupt})
    stopped = verb("study", "watch", opened["id"])
    assert stopped.exit_code == 130
    assert f"study {opened['id']} goes on" in stopped.stderr
    assert service.world.studies()[-1].state == "searching"
    assert service.world.conclude().state == "decided"


def test_there_is_nothing_to_watch_where_there_is_no_study(verb) -> None:
    with pytest.raises(MissingError, match="no study 'other'"):
        verb("study", "watch", "other")


def listed(verb: Verb) -> list[dict[str, Any]]:
    return answer(verb("study", "list", "--json"))


# --------------------------------------------------------------------------- revisions


@pytest.mark.parametrize("revision", ["run", "run@main", "run@best"])
def test_the_champion_is_pulled(verb, merge, tmp_path, revision) -> None:
    out = tmp_path / "out"
    pulled = answer(verb("pull", revision, "--out", str(out), "--json"))
    assert pulled["best"]["artifact"] == merge.id
    assert size(out) == merge.manifest.files[0].size
    assert "best" in json.loads((out / "recipe.json").read_text())


def test_a_merge_is_pulled_by_its_id(verb, merge, tmp_path) -> None:
    out = tmp_path / "out"
    pulled = verb("pull", f"run@{merge.id}", "--out", str(out))
    assert f"merge {merge.id} of study {merge.study}" in pulled.stdout
    assert size(out) == merge.manifest.files[0].size
    recipe = json.loads((out / "recipe.json").read_text())["artifact"]["recipe"]
    assert recipe["weights"] == list(merge.weights.values)


def test_a_raw_checkpoint_is_pulled_by_its_step(verb, tmp_path) -> None:
    out = tmp_path / "out"
    pulled = verb("pull", "run@step-100", "--out", str(out))
    assert "the checkpoint of step 100, attempt 1" in pulled.stdout
    assert {"model.safetensors", "config.json"} <= {file.name for file in out.iterdir()}


@pytest.mark.parametrize(
    ("revision", "error", "complaint"),
    [
        ("run@", InvalidInputError, "names no weights"),
        ("run@latest", InvalidInputError, "names no weights"),
        ("run@step-150", ServiceError, "no checkpoint at step 150"),
        ("run@a_1", ServiceError, "no artifact"),
        ("other@main", ServiceError, "no run 'other'"),
    ],
)
def test_what_is_no_revision_is_refused(verb, tmp_path, revision, error, complaint) -> None:
    with pytest.raises(error, match=complaint):
        verb("pull", revision, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_merge_of_another_run_is_not_pulled_as_this_one(verb, merge, tmp_path) -> None:
    with pytest.raises(InvalidInputError, match="of run 'run', not of 'other'"):
        verb("pull", f"other@{merge.id}", "--out", str(tmp_path / "out"))


def size(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size
