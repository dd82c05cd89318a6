"""What people change in a running service: settings of a run, and its best."""

import json
from collections.abc import Iterator

import httpx2
import pytest
import typer
from typer.testing import CliRunner

from ckptmerge.cli import pin as verbs
from ckptmerge.client.client import Client
from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError, ServiceError
from ckptmerge.storage.records import CheckpointRecord, EventRecord, HeldOutRecord
from ckptmerge.wire.runs import NewStudySpec, RunChange, WindowPolicySpec
from tests.integration.conducted_service import ConductedService, conducted_service

RUN, BEST = "/v1/runs/run", "/v1/runs/run/best"
WHY = "the merge repeats itself"


@pytest.fixture
def service(tmp_path) -> Iterator[ConductedService]:
    """A run that has promoted a merge, and a second held-out set."""
    with conducted_service(tmp_path) as running:
        running.world.arrive(10)
        running.world.arrive(20)
        running.world.conclude()
        with running.world.store.write() as unit:
            file = FileEntry("h", 1, Digest.of_bytes(b"h"))
            unit.insert(
                HeldOutRecord(name="other", digest=Digest.of_bytes(b"other"), file=file, created=0)
            )
        yield running


@pytest.fixture
def http(service) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=service.url) as opened:
        yield opened


@pytest.fixture
def client(service) -> Iterator[Client]:
    with Client(service.url) as opened:
        yield opened


def kinds(service: ConductedService) -> list[str]:
    return [event.kind for event in service.world.all(EventRecord)]


def test_a_change_touches_only_the_fields_that_it_names(http) -> None:
    before = http.get(RUN).json()
    change = {"study": {"seed": 7}, "window": {"every": 3}, "retention": {"keep_last": 5}}
    answer = http.patch(RUN, json=change)
    assert answer.status_code == 200
    assert answer.json() == {
        **before,
        "study": {**before["study"], "seed": 7},
        "window": {**before["window"], "every": 3},
        "retention": {**before["retention"], "keep_last": 5},
    }
    assert http.get(RUN).json() == answer.json()


def test_a_rule_is_taken_back_by_null(http) -> None:
    http.patch(RUN, json={"retention": {"keep_last": 5, "keep_best": 2}})
    answer = http.patch(RUN, json={"retention": {"keep_last": None}}).json()
    said = {name: number for name, number in answer["retention"].items() if number is not None}
    assert said == {"keep_best": 2}


def test_nothing_changed_is_no_error_and_keeps_the_tag(http, service) -> None:
    events, tag = kinds(service), http.get(RUN).headers["etag"]
    for change in ({}, {"held_out": "default", "study": {"budget": 12}, "window": {"size": 4}}):
        answer = http.patch(RUN, json=change)
        assert (answer.status_code, answer.headers["etag"]) == (200, tag)
    assert kinds(service) == events


def test_a_change_may_depend_on_what_the_run_was(http) -> None:
    old = http.get(RUN).headers["etag"]
    changed = http.patch(RUN, json={"study": {"seed": 1}}, headers={"If-Match": f'"x", {old}'})
    assert changed.status_code == 200
    new = changed.headers["etag"]
    assert new == http.get(RUN).headers["etag"] != old
    for stale in (old, f"W/{new}", '"x"', new.strip('"')):
        late = http.patch(RUN, json={"study": {"seed": 2}}, headers={"If-Match": stale})
        assert late.status_code == 412
        assert late.json()["type"] == "/problems/precondition-failed"
        assert late.headers["etag"] == new
    assert http.get(RUN).json()["study"]["seed"] == 1
    assert http.patch(RUN, json={"study": {"seed": 2}}, headers={"If-Match": "*"}).is_success


def test_a_checkpoint_that_arrives_changes_the_tag(http, service) -> None:
    before = http.get(RUN).headers["etag"]
    service.world.arrive(30)
    assert http.get(RUN).headers["etag"] != before


def test_other_documents_begin_an_era_by_the_client(client, service) -> None:
    run = client.change_run("run", RunChange(held_out="other"))
    assert (run.held_out, run.era) == ("other", 2)
    best = client.best("run").answer
    assert (best.promoted, best.era, best.score) == (True, 1, None)
    assert kinds(service)[-2:] == ["era-begun", "study-opened"]
    study = NewStudySpec(budget=9)
    assert client.change_run("run", RunChange(study=study)).study.seed == run.study.seed
    every = client.change_run("run", RunChange(window=WindowPolicySpec(every=1))).window
    assert (every.every, every.size) == (1, run.window.size)


@pytest.mark.parametrize(
    ("change", "status"),
    [({"held_out": "none"}, 404), ({"study": {"budget": 0}}, 422), ({"name": "b"}, 422)],
)
def test_a_change_that_cannot_be_made_is_refused(http, change, status) -> None:
    assert http.patch(RUN, json=change).status_code == status
    assert http.patch("/v1/runs/none", json={}).status_code == 404


def test_a_best_by_hand_is_served_until_it_is_let_go(http, service) -> None:
    merge = http.get(BEST).json()
    checkpoint = service.world.all(CheckpointRecord)[0]
    pinned = http.post(BEST, json={"checkpoint": checkpoint.id, "reason": WHY})
    assert pinned.status_code == 200
    assert pinned.json() == http.get(BEST).json()
    assert (pinned.json()["step"], pinned.json()["pinned"]["reason"]) == (10, WHY)
    file = http.get(f"{BEST}/files/config.json")
    assert file.headers["location"] == f"/v1/checkpoints/{checkpoint.id}/files/config.json"
    for _ in range(2):
        assert http.delete(BEST).status_code == 204
    assert http.get(BEST).json() == merge
    assert merge["pinned"] is None
    assert kinds(service)[-2:] == ["best-pinned", "best-unpinned"]


def test_a_pin_that_cannot_be_is_refused(http, service) -> None:
    bare = service.world.arrive(25, without=["config.json"]).record.id
    both = {"checkpoint": bare, "artifact": "a_1", "reason": WHY}
    for body, status, kind in [
        ({"checkpoint": "c_none", "reason": WHY}, 404, "missing"),
        ({"artifact": "a_none", "reason": WHY}, 404, "missing"),
        ({"checkpoint": bare, "reason": WHY}, 409, "refused"),
        (both, 422, "invalid-input"),
        ({"reason": WHY}, 422, "invalid-input"),
        ({"checkpoint": bare}, 422, "invalid-request"),
        ({"checkpoint": bare, "reason": ""}, 422, "invalid-request"),
    ]:
        answer = http.post(BEST, json=body)
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{kind}")
    for method in ("POST", "DELETE"):
        content = {"checkpoint": bare, "reason": WHY} if method == "POST" else None
        assert http.request(method, "/v1/runs/none/best", json=content).status_code == 404


def test_an_artifact_is_no_checkpoint_though_both_have_ids(http) -> None:
    artifact = http.get(BEST).json()["artifact"]
    answer = http.post(BEST, json={"checkpoint": artifact, "reason": WHY})
    assert answer.status_code == 404
    assert http.post(BEST, json={"artifact": artifact, "reason": WHY}).status_code == 200


def test_people_pin_a_step_and_let_go_of_it(service, client) -> None:
    app = typer.Typer()
    app.command()(verbs.pin)
    app.command()(verbs.unpin)

    def verb(*arguments: str) -> str:
        done = CliRunner().invoke(
            app, arguments, env={"CKPTMERGE_URL": service.url}, catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return done.stdout

    checkpoint = service.world.all(CheckpointRecord)[0].id
    artifact = client.best("run").answer.artifact
    assert json.loads(verb("pin", "run", "step-10", "--reason", WHY, "--json"))["step"] == 10
    assert f"pinned by hand: {WHY}" in verb("pin", "run", checkpoint, "--reason", WHY)
    assert kinds(service).count("best-pinned") == 1, "the same checkpoint by another name"
    assert artifact in verb("pin", "run", artifact, "--reason", WHY)
    assert json.loads(verb("unpin", "run", "--json")) == {"run": "run", "pinned": None}
    assert "nothing is pinned" in verb("unpin", "run")
    assert client.best("run").answer.pinned is None


def test_a_revision_that_names_nothing_is_not_sent(client) -> None:
    for revision in ("10", "step-", "latest", "step-1x"):
        with pytest.raises(InvalidInputError, match="use step-N"):
            client.pin("run", revision, reason=WHY)
    with pytest.raises(InvalidInputError, match="say"):
        client.pin("run", "step-10", reason="  ")
    with pytest.raises(ServiceError, match="no checkpoint at step 11"):
        client.pin("run", "step-11", reason=WHY)
