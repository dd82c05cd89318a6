"""Retention as its users meet it: asked for, tried out, applied, and by itself while they sleep."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save

from ckptmerge.cli.main import run as run_command
from ckptmerge.domain.digest import Digest
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.records import BlobRecord, EventRecord
from service.app import create_app
from service.settings import Limits, Settings
from service.tidying import Tidying
from tests.integration.whole_service import believe, serving
from tests.unit.workflow.conducted import World, propose

OURS = "http://127.0.0.1:8117"
RUN = "/v1/runs/olmo-1b"
RAW = {"content-type": "application/octet-stream"}
QUIET = {"size": 2, "every": 1, "minimum": 64}
"""A window so large that no study is opened."""


def weights(step: int) -> bytes:
    return save({"w": np.full(64, step, np.float32)})


@dataclass
class Service:
    """An application, and what a user does with it."""

    http: TestClient
    world: World
    blobs: FolderBlobStore

    def make_run(self, **settings: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/runs", json={"name": "olmo-1b", "window": QUIET, **settings})
        assert answer.status_code == 201, answer.text
        for name in ("config.json", "tokenizer.json"):
            self.http.put(f"{RUN}/files/{name}", content=b"{}").raise_for_status()
        return answer.json()

    def post(self, step: int) -> int:
        query = f"{RUN}/checkpoints?step={step}"
        answer = self.http.post(query, content=weights(step), headers=RAW)
        answer.raise_for_status()
        return answer.status_code

    def states(self) -> dict[int, str]:
        items = self.http.get(f"{RUN}/checkpoints").json()["items"]
        return {item["step"]: item["state"] for item in items}

    def has(self, step: int) -> bool:
        return self.blobs.size(Digest.of_bytes(weights(step))) is not None

    def rows(self) -> dict[str, BlobRecord]:
        return {row.hex: row for row in self.world.all(BlobRecord)}


def opened(tmp_path: Path, grace: float) -> tuple[Service, Any]:
    world, blobs = World(), FolderBlobStore(tmp_path / "blobs", reserve=0)
    settings = Settings(data=tmp_path, limits=Limits(reserve=0, blob_grace=grace))
    app = create_app(
        settings, store=world.store, blob_store=blobs, propose=propose, believe=believe
    )
    return Service(TestClient(app, base_url=OURS), world, blobs), app


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """One whose studies do not move, and nothing happens that nobody asked for."""
    service, app = opened(tmp_path, 0.0)
    yield service
    app.state.service.writer.shutdown()
    app.state.service.readers.shutdown()
    service.blobs.close()


@pytest.fixture
def awake(tmp_path: Path) -> Iterator[Service]:
    """One that moves studies on and tidies up by itself."""
    service, _ = opened(tmp_path, 0.0)
    with service.http:
        yield service
    service.blobs.close()


def eventually(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_a_policy_is_tried_out_and_changed_and_applied(service: Service) -> None:
    assert service.make_run()["retention"] == {
        "keep_last": None, "keep_every": None, "keep_best": None, "ttl": None, "quota": None,
    }  # fmt: skip
    for step in range(100, 700, 100):
        service.post(step)
    nothing = service.http.get(f"{RUN}/retention").json()
    assert (nothing["goes"], nothing["bytes"], nothing["applied"]) == ([], 0, False)
    tried = service.http.get(f"{RUN}/retention?keep_last=1&keep_every=300").json()
    said = {name: number for name, number in tried["policy"].items() if number is not None}
    assert said == {"keep_last": 1, "keep_every": 300}
    assert [item["step"] for item in tried["goes"]] == [100, 200, 400]
    assert tried["bytes"] == 3 * len(weights(100))
    assert {item["step"]: item["reason"] for item in tried["stays"]} == {
        300: "step divisible by 300 (keep_every)",
        500: "one of the newest 2, which the next study may merge",
        600: "one of the newest 2, which the next study may merge",
    }
    assert set(service.states().values()) == {"complete"}
    change = {"retention": {"keep_last": 1, "keep_every": 300}}
    service.http.patch(RUN, json=change).raise_for_status()
    done = service.http.post(f"{RUN}/retention").json()
    assert done == tried | {"applied": True}
    gone = [step for step, state in service.states().items() if state == "removed"]
    assert gone == [100, 200, 400]
    assert [service.has(step) for step in range(100, 700, 100)] == [False] * 2 + [True, False] + [
        True
    ] * 2
    assert service.http.post(f"{RUN}/retention").json()["goes"] == []


def test_a_removed_checkpoint_says_so_and_comes_back_with_its_bytes(service: Service) -> None:
    service.make_run(retention={"keep_last": 1})
    for step in (100, 200, 300):
        service.post(step)
    service.http.post(f"{RUN}/retention").raise_for_status()
    described = service.http.get(f"{RUN}/checkpoints/100").json()
    assert (described["state"], described["removed"][-1]) == ("removed", "Z")
    answer = service.http.get(described["files"][0]["href"])
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/missing"
    assert "the same bytes sent again bring it back" in answer.json()["detail"]
    assert service.post(100) == 201
    assert service.states()[100] == "complete"
    back = service.http.get(described["files"][1]["href"])
    assert back.content in {weights(100), b"{}"}


def test_a_pin_holds_a_checkpoint(service: Service) -> None:
    service.make_run(retention={"keep_last": 1})
    for step in (100, 200, 300, 400):
        service.post(step)
    assert service.http.put(f"{RUN}/checkpoints/100/pin").json()["pinned"]
    service.http.post(f"{RUN}/retention").raise_for_status()
    assert [step for step, state in service.states().items() if state == "removed"] == [200]
    refused = service.http.put(f"{RUN}/checkpoints/200/pin")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/refused")
    assert service.http.put(f"{RUN}/checkpoints/250/pin").status_code == 404
    assert not service.http.delete(f"{RUN}/checkpoints/100/pin").json()["pinned"]
    service.http.post(f"{RUN}/retention").raise_for_status()
    assert service.states()[100] == "removed"


def test_settings_of_a_run_that_is_there_are_compared_with_its_retention(service: Service) -> None:
    service.make_run(retention={"keep_last": 3})
    again = {"name": "olmo-1b", "retention": {"keep_last": 3}}
    assert service.http.post("/v1/runs", json=again).status_code == 200
    other = {"name": "olmo-1b", "retention": {"keep_last": 4}}
    assert service.http.post("/v1/runs", json=other).status_code == 409
    bad = service.http.get(f"{RUN}/retention?keep_last=0")
    assert bad.status_code == 422
    assert service.http.get("/v1/runs/nobody/retention").status_code == 404
    assert service.http.post("/v1/runs/nobody/retention").status_code == 404


def test_every_door_puts_its_bytes_on_record(service: Service) -> None:
    service.make_run()
    service.post(100)
    documents = "\n".join(
        json.dumps({"text": f"document {n} of {d}", "domain": d})
        for n in range(100) for d in ("code", "prose")
    ).encode()  # fmt: skip
    service.http.put("/v1/held-out-sets/web", content=documents).raise_for_status()
    service.http.put("/v1/held-out-sets/bad", content=b"no documents")
    refused = save({"w": np.full(4, np.nan, np.float32)})
    query = f"{RUN}/checkpoints?step=200"
    assert service.http.post(query, content=refused, headers=RAW).status_code == 422
    loose = b"uploaded"
    address = f"/v1/blobs/{Digest.of_bytes(loose)}"
    assert service.http.put(address, content=loose).status_code == 201
    arrived = [b"{}", weights(100), documents, b"no documents", refused, loose]
    assert {Digest.of_bytes(content).hex for content in arrived} == set(service.rows())
    assert {digest.hex for digest in service.blobs} == set(service.rows())
    service.http.post(f"{RUN}/retention").raise_for_status()
    kept = [b"{}", weights(100), documents]
    assert {digest.hex for digest in service.blobs} == {Digest.of_bytes(c).hex for c in kept}


def test_an_upload_of_what_is_there_begins_its_grace_anew(service: Service) -> None:
    address = f"/v1/blobs/{Digest.of_bytes(b'twice')}"
    service.http.put(address, content=b"twice")
    (before,) = service.rows().values()
    assert service.http.put(address, content=b"twice").status_code == 200
    (after,) = service.rows().values()
    assert after.created > before.created
    assert after.version == before.version + 1


def test_an_upload_of_what_is_collected_at_that_moment_is_taken(service: Service) -> None:
    """It was there when the request came, and gone when it was to be put on record."""
    digest = Digest.of_bytes(b"twice")
    service.http.put(f"/v1/blobs/{digest}", content=b"twice")
    is_own, answers = service.blobs.is_own, [True]

    def seen_once(asked: Digest) -> bool:
        if answers and asked == digest:
            service.blobs.delete(digest)
            return answers.pop()
        return is_own(asked)

    service.blobs.is_own = seen_once
    assert service.http.put(f"/v1/blobs/{digest}", content=b"twice").status_code == 201
    assert service.blobs.size(digest) == 5


def test_a_workers_scores_stay_and_its_merge_only_while_it_is_wanted(service: Service) -> None:
    service.world.blobs = service.blobs
    service.world.arrive(10)
    service.world.arrive(20)
    assert service.world.conductor.advance(service.world.studies()[0].id)
    record = service.world.lease()
    assert record is not None
    done = service.world.work(record.task)
    assert done.scores is not None
    outcome = {"fence": record.task.fence, "status": "ok", "scores": str(done.scores)}
    outcome |= {"repeated": str(done.repeated)} if done.repeated else {}
    service.http.post(f"/v1/leases/{record.id}/outcome", json=outcome).raise_for_status()
    assert service.rows()[done.scores.hex].lasting
    study = service.world.studies()[0].id
    service.http.patch(f"/v1/studies/{study}", json={"state": "cancelled"}).raise_for_status()
    service.make_run()
    service.http.post(f"{RUN}/retention").raise_for_status()
    assert service.blobs.size(done.scores) is not None


def test_checkpoints_go_by_themselves_as_others_come(awake: Service) -> None:
    awake.make_run(retention={"keep_last": 1})
    for step in (100, 200, 300, 400):
        awake.post(step)
    eventually(lambda: not awake.has(100) and not awake.has(200))
    assert awake.states() == {100: "removed", 200: "removed", 300: "complete", 400: "complete"}
    assert awake.has(300)
    kinds = [event.kind for event in awake.world.all(EventRecord)]
    assert kinds.count("checkpoint-removed") == 2


def test_a_checkpoint_that_a_study_held_goes_once_the_study_is_over(awake: Service) -> None:
    awake.make_run(retention={"keep_last": 1})
    awake.post(100)
    awake.http.patch(RUN, json={"window": {"minimum": 2}}).raise_for_status()
    awake.post(200)
    study = awake.http.get("/v1/studies").json()["items"][0]["id"]
    awake.http.patch(RUN, json={"window": {"minimum": 64}}).raise_for_status()
    for step in (300, 400):
        awake.post(step)
    held = {
        item["step"]: item["reason"] for item in awake.http.get(f"{RUN}/retention").json()["stays"]
    }
    assert held[100] == f"study {study} is still going, and needs it"
    awake.http.patch(f"/v1/studies/{study}", json={"state": "cancelled"}).raise_for_status()
    eventually(lambda: awake.states()[100] == "removed")
    assert awake.states() == {100: "removed", 200: "removed", 300: "complete", 400: "complete"}


def test_the_command_shows_a_plan_and_applies_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tidying, "__call__", lambda *_: None)
    service, app = opened(tmp_path, 0.0)
    service.make_run(retention={"keep_last": 1})
    for step in (100, 200, 300):
        service.post(step)
    with serving(app) as url:
        assert run_command(["retention", "olmo-1b", "--url", url]) == 0
        shown = capsys.readouterr().out
        assert service.has(100)
        assert run_command(["retention", "olmo-1b", "--url", url, "--apply", "--json"]) == 0
        printed = capsys.readouterr().out
        assert run_command(["retention", "nobody", "--url", url]) == 1
    # The service is in this process, and logs to the same place.
    applied = json.loads(printed[printed.index("{\n") : printed.rindex("}") + 1])
    assert "1 of 3 would be removed" in shown
    assert [item["step"] for item in applied["goes"]] == [100]
    assert applied["applied"]
    assert not service.has(100)
    service.blobs.close()
