"""Checkpoints that a service cannot take: each is refused with a sentence, and nothing is kept."""

import errno
import os
import tempfile
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import put
from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from ckptmerge.storage.records import HeldOutRecord, RunRecord
from service.app import create_app
from service.settings import Limits, Settings
from tests.integration.door import MODEL, RAW, URL, Door, opened, refused
from tests.integration.whole_service import believe
from tests.unit.workflow.conducted import propose


@pytest.fixture
def door(tmp_path) -> Iterator[Door]:
    with opened(tmp_path) as door:
        yield door


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
    refused(answer, 403, "source-refused", "link")
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


def test_bytes_that_were_wrong_are_superseded(door) -> None:
    other = save({"w": np.zeros(1000, np.float32)})
    wrong = door.client.post(f"{URL}?step=10", content=MODEL, headers=RAW).json()
    answer = door.client.post(f"{URL}?step=10", content=other, headers=RAW)
    refused(answer, 409, "step-exists", "?supersede=true")
    right = door.client.post(f"{URL}?step=10&supersede=true", content=other, headers=RAW)
    assert right.status_code == 201
    assert door.client.get(f"{URL}/10").json() == right.json()
    assert door.client.get(f"{URL}/10/files/model.safetensors").content == other
    listed = {item["id"]: item["superseded_by"] for item in door.client.get(URL).json()["items"]}
    assert listed == {wrong["id"]: right.json()["id"], right.json()["id"]: None}


def test_the_first_checkpoint_can_be_superseded_by_one_of_another_shape(door) -> None:
    door.client.post(f"{URL}?step=10", content=MODEL, headers=RAW)
    other = save({"w": np.zeros(7, np.float32)})
    answer = door.client.post(f"{URL}?step=20", content=other, headers=RAW)
    refused(answer, 409, "incompatible-checkpoint", "shape [1000] against [7]")
    right = door.client.post(f"{URL}?step=10&supersede=true", content=other, headers=RAW)
    assert right.status_code == 201
    assert door.client.post(f"{URL}?step=20", content=other, headers=RAW).status_code == 201


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("what", ["link", "pipe"])
def test_a_source_whose_files_are_links_or_pipes_is_refused(door, name: str, what: str) -> None:
    source = door.checkpoint(door.root / "step-10")
    (source / name).unlink()
    if what == "link":
        (source / name).symlink_to("/etc/hostname")
    else:
        os.mkfifo(source / name)
    answer = door.client.post(URL, json={"step": 10, "source": str(source)})
    assert answer.status_code == (403 if what == "link" else 422), answer.json()
    assert name in answer.json()["detail"]
    assert list(door.world.blobs) == []


@pytest.mark.parametrize("name", ["x" * 300, "nul\0", "x" * 3000, "."])
def test_a_source_that_no_file_system_can_name_is_refused(door, name: str) -> None:
    answer = door.client.post(URL, json={"step": 10, "source": f"{door.root}/{name}"})
    assert answer.status_code in {403, 422}, answer.json()


def test_a_manifest_holds_the_files_of_a_checkpoint_and_each_once(door) -> None:
    digest = str(put(door.world.blobs, MODEL))
    model = {"name": "model.safetensors", "size": len(MODEL), "digest": digest}
    for files, saying in (
        ([model, model], "given twice"),
        ([model, {**model, "name": "modeling_evil.py"}], "modeling_evil.py is no file"),
        ([{**model, "name": "pytorch_model.bin"}], "pytorch_model.bin is no file"),
    ):
        answer = door.client.post(URL, json={"step": 10, "files": files})
        refused(answer, 422, "checkpoint-format", saying)
    for name in ("é.safetensors", "\u4e16" * 255, "a/b.safetensors", "model.safetensors\n"):
        answer = door.client.post(URL, json={"step": 10, "files": [{**model, "name": name}]})
        assert answer.status_code == 422, answer.json()
    assert door.known() == []


def test_configuration_that_names_code_is_taken_at_no_door(door) -> None:
    config = b'{"model_type":"llama","auto_map":{"AutoConfig":"evil.Config"}}'
    source = door.checkpoint(door.root / "step-10")
    (source / "config.json").write_bytes(config)
    files = [
        {"name": name, "size": len(content), "digest": str(put(door.world.blobs, content))}
        for name, content in {"model.safetensors": MODEL, "config.json": config}.items()
    ]
    for answer in (
        door.client.put("/v1/runs/run/files/config.json", content=config, headers=RAW),
        door.client.post(URL, json={"step": 10, "files": files}),
        door.client.post(URL, json={"step": 10, "source": str(source)}),
    ):
        refused(answer, 422, "checkpoint-format", "config.json is not an acceptable side file")
    assert door.known() == []
    assert door.client.get("/v1/runs/run").json()["files"] == {}


def test_a_refusal_says_nothing_of_the_services_own_folders(door) -> None:
    digest = str(put(door.world.blobs, b"{}" * 10))
    files = [{"name": "a.safetensors.index.json", "size": 20, "digest": digest}]
    answer = door.client.post(URL, json={"step": 10, "files": files})
    refused(answer, 422, "checkpoint-format", "a.safetensors.index.json")
    assert "/" not in answer.json()["detail"].replace("and/or", "")


def test_a_full_disk_of_temporary_files_is_no_fault_of_the_checkpoint(door, monkeypatch) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = door.checkpoint(door.root / "step-10")
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "mkdtemp", full)
        answer = door.client.post(URL, json={"step": 10, "source": str(source)})
    refused(answer, 507, "out-of-space", "TMPDIR")
    assert door.known() == []
    assert door.client.post(URL, json={"step": 10, "source": str(source)}).status_code == 201
