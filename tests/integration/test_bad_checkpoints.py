"""Checkpoints that a service cannot take: each is refused with a sentence, and nothing is kept."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import put
from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from ckptmerge.storage.records import CheckpointRecord, HeldOutRecord, RunRecord
from service.app import create_app
from service.settings import Limits, Settings
from tests.integration.whole_service import believe
from tests.unit.workflow.conducted import World, propose

URL = "/v1/runs/run/checkpoints"
RAW = {"Content-Type": "application/octet-stream"}
MODEL = save({"w": np.ones(1000, np.float32)})


class Door:
    """A service with one source root, and a client of it."""

    def __init__(self, folder: Path, world: World) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.world = world
        self.app = create_app(
            Settings(data=folder, source_roots=(self.root,), limits=Limits(reserve=0)),
            store=world.store,
            blob_store=world.blobs,
            propose=propose,
            believe=believe,
        )
        self.client = TestClient(self.app, base_url="http://127.0.0.1:8117")

    def checkpoint(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(MODEL)
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text("{}")
        return folder

    def known(self) -> list[CheckpointRecord]:
        return self.world.all(CheckpointRecord)


@pytest.fixture
def door(tmp_path) -> Iterator[Door]:
    opened = Door(tmp_path, World())
    yield opened
    state = opened.app.state.service
    state.writer.shutdown()
    state.readers.shutdown()


def refused(answer, status: int, kind: str, saying: str) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (status, f"/problems/{kind}"), problem
    assert saying in problem["detail"]


def test_a_source_beneath_the_root_is_taken(door) -> None:
    source = door.checkpoint(door.root / "runs" / "step-10")
    answer = door.client.post(URL, json={"step": 10, "source": str(source)})
    assert answer.status_code == 201
    assert answer.json()["state"] == "complete"


@pytest.mark.parametrize("way", ["beside", "dots", "link", "link in between", "relative"])
def test_a_source_that_leads_out_of_the_root_is_refused(door, tmp_path, way: str) -> None:
    outside = door.checkpoint(tmp_path / "outside" / "step-10")
    (door.root / "link").symlink_to(outside)
    (door.root / "between").symlink_to(outside.parent)
    source = {
        "beside": str(outside),
        "dots": f"{door.root}/../outside/step-10",
        "link": f"{door.root}/link",
        "link in between": f"{door.root}/between/step-10",
        "relative": "outside/step-10",
    }[way]
    before = list(door.world.blobs)
    answer = door.client.post(URL, json={"step": 10, "source": source})
    refused(answer, 403, "source-refused", "--source-root")
    assert door.known() == []
    assert list(door.world.blobs) == before


@pytest.mark.parametrize("kept", [0, 4, 40, len(MODEL) - 1])
def test_a_truncated_file_is_refused(door, kept: int) -> None:
    answer = door.client.post(f"{URL}?step=10", content=MODEL[:kept], headers=RAW)
    assert answer.status_code == 422, answer.json()
    assert "model.safetensors" in answer.json()["detail"]
    assert door.known() == []


def test_a_blob_that_is_not_what_the_manifest_says_is_refused(door) -> None:
    digest = put(door.world.blobs, MODEL)
    short = {"name": "model.safetensors", "size": len(MODEL) - 1, "digest": str(digest)}
    answer = door.client.post(URL, json={"step": 10, "files": [short]})
    refused(answer, 404, "missing", f"its blob has {len(MODEL)}")
    never = {**short, "digest": str(Digest.of_bytes(b"never sent"))}
    answer = door.client.post(URL, json={"step": 10, "files": [never]})
    refused(answer, 404, "missing", "was not uploaded")
    assert door.known() == []


def test_a_raw_checkpoint_must_say_its_step(door) -> None:
    before = list(door.world.blobs)
    answer = door.client.post(URL, content=MODEL, headers=RAW)
    refused(answer, 422, "invalid-input", "?step=1000")
    assert list(door.world.blobs) == before, "refused before the body was taken"


@pytest.fixture
def bare(tmp_path) -> Iterator[TestClient]:
    """A service that was started without a held-out set and knows no run."""
    app = create_app(
        Settings(data=tmp_path, limits=Limits(reserve=0)), store=MemoryStore(),
        blob_store=MemoryBlobStore(), propose=propose, believe=believe,
    )  # fmt: skip
    yield TestClient(app, base_url="http://127.0.0.1:8117")
    app.state.service.writer.shutdown()
    app.state.service.readers.shutdown()


def test_an_unknown_run_without_documents_to_judge_it_is_not_made(bare) -> None:
    answer = bare.post(URL, json={"step": 1, "source": "/x"})
    refused(answer, 404, "missing", "POST /v1/runs")
    assert bare.get("/v1/runs").json()["items"] == []


def test_a_run_that_names_documents_nobody_has_sent_is_not_made(bare) -> None:
    answer = bare.post("/v1/runs", json={"name": "run", "held_out": "none"})
    refused(answer, 404, "missing", "curl -T held-out.jsonl")
    assert bare.get("/v1/runs").json()["items"] == []


def test_a_run_that_the_service_can_judge_is_made_by_its_first_checkpoint(door) -> None:
    source = door.checkpoint(door.root / "step-10")
    answer = door.client.post(
        "/v1/runs/fresh/checkpoints", json={"step": 10, "source": str(source)}
    )
    assert answer.status_code == 201
    assert "fresh" in {run.name for run in door.world.all(RunRecord)}
    assert [record.name for record in door.world.all(HeldOutRecord)] == ["default"]


def test_a_step_can_be_put_and_its_files_fetched(door) -> None:
    source = str(door.checkpoint(door.root / "step-10"))
    first = door.client.put(f"{URL}/10", json={"step": 10, "source": source})
    again = door.client.put(f"{URL}/10", json={"step": 10, "source": source})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert door.client.get(f"{URL}/10/files/model.safetensors").content == MODEL
    refused(door.client.get(f"{URL}/10/files/vocab.json"), 404, "missing", "no file 'vocab.json'")


def test_a_step_that_is_put_is_the_one_of_the_address(door) -> None:
    source = str(door.checkpoint(door.root / "step-10"))
    answer = door.client.put(f"{URL}/11", json={"step": 10, "source": source})
    refused(answer, 422, "invalid-input", "step 11 and the body says step 10")
    other = save({"w": np.zeros(1000, np.float32)})
    assert door.client.put(f"{URL}/10", content=MODEL, headers=RAW).status_code == 201
    refused(door.client.put(f"{URL}/10", content=other, headers=RAW), 409, "step-exists", "10")
