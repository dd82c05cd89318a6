"""Checkpoints that stay where the trainer wrote them, and what follows when they do not."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import put, read
from ckptmerge.storage.records import CheckpointRecord, TaskRecord
from ckptmerge.workflow.admit import admit
from ckptmerge.workflow.reconcile import reconcile
from service.operation.backup import back_up
from service.operation.restore import restore
from service.operation.scrub import scrub
from tests.integration.door import MODEL, RAW, URL, Door, opened, refused
from tests.unit.service.kept import NOW, Stores, stores_in
from tests.unit.workflow.conducted import World

DIGEST = Digest.of_bytes(MODEL)


@pytest.fixture
def door(tmp_path) -> Iterator[Door]:
    with opened(tmp_path) as door:
        yield door


def register(door: Door, source: Path, *, step: int = 10, in_place: bool = True):
    return door.client.post(
        URL, json={"step": step, "source": str(source), "in_place": in_place}
    )  # fmt: skip


def rewrite(file: Path, content: bytes) -> None:
    """Write to a file a moment after it was registered, however coarse the clock of the disk."""
    before = file.stat().st_mtime_ns
    file.write_bytes(content)
    os.utime(file, ns=(before, before + 1))


def test_the_weights_stay_where_they_are_and_are_served_from_there(door) -> None:
    source = door.checkpoint(door.root / "step-10")
    answer = register(door, source)
    assert answer.status_code == 201
    assert answer.json()["in_place"] is True
    assert not door.world.blobs.is_own(DIGEST)
    assert door.client.get(f"{URL}/10/files/model.safetensors").content == MODEL
    small = Digest.of_bytes(b"{}")
    assert door.world.blobs.is_own(small), "what is small beside them is copied"


def test_in_place_is_said_of_sources_alone(door) -> None:
    files = [{"name": "model.safetensors", "size": 1, "digest": str(DIGEST)}]
    answer = door.client.post(URL, json={"step": 10, "files": files, "in_place": True})
    refused(answer, 422, "invalid-input", "'in_place' is said of a 'source'")


def test_what_has_changed_is_not_served(door) -> None:
    source = door.checkpoint(door.root / "step-10")
    register(door, source)
    rewrite(source / "model.safetensors", MODEL[::-1])
    answer = door.client.get(f"{URL}/10/files/model.safetensors")
    refused(answer, 404, "missing", "has changed since")


def test_the_same_source_copied_later_is_kept(door) -> None:
    source = door.checkpoint(door.root / "step-10")
    register(door, source)
    again = register(door, source, in_place=False)
    assert again.status_code == 201
    assert again.json()["in_place"] is False
    (source / "model.safetensors").unlink()
    assert door.client.get(f"{URL}/10/files/model.safetensors").content == MODEL


def test_bytes_that_are_sent_are_taken_although_they_are_there_in_place(door) -> None:
    """Whoever sends them relies on them from then on, whatever the trainer does."""
    source = door.checkpoint(door.root / "step-10")
    register(door, source)
    sent = door.client.put(f"/v1/blobs/{DIGEST}", content=MODEL, headers=RAW)
    assert sent.status_code == 201
    (source / "model.safetensors").unlink()
    assert door.client.get(f"/v1/blobs/{DIGEST}").content == MODEL


def test_a_file_that_comes_back_is_registered_again(door) -> None:
    source = door.checkpoint(door.root / "step-10")
    register(door, source)
    (source / "model.safetensors").unlink()
    refused(door.client.get(f"{URL}/10/files/model.safetensors"), 404, "missing", "in place")
    (source / "model.safetensors").write_bytes(MODEL)
    assert register(door, source).status_code == 200
    assert door.client.get(f"{URL}/10/files/model.safetensors").content == MODEL


def test_a_task_that_needs_a_changed_file_fails_and_says_so(door) -> None:
    sources = [
        door.checkpoint(door.root / f"step-{step}", save({"w": np.full(9, step, np.float32)}))
        for step in (10, 20)
    ]
    for source in sources:
        register(door, source, step=int(source.name.removeprefix("step-")))
    study = door.world.studies()[-1]
    rewrite(sources[0] / "model.safetensors", MODEL)
    while door.world.conductor.advance(study.id):
        pass
    assert door.client.post("/v1/leases", json={"worker": "w", "wait": 0}).status_code == 204
    reasons = {task.task.reason for task in door.world.all(TaskRecord)}
    assert reasons
    assert all("has changed since" in (reason or "") for reason in reasons)


@pytest.fixture
def away(tmp_path) -> Iterator[tuple[Stores, World, Path]]:
    """A data folder's stores, and a checkpoint that was registered in place."""
    source = tmp_path / "model.safetensors"
    source.write_bytes(MODEL)
    with stores_in(tmp_path / "data") as stores:
        world = World(store=stores.store, blobs=stores.blobs)
        digest, size = stores.blobs.take_in_place(source)
        small = put(stores.blobs, b"{}")
        files = [
            FileEntry("model.safetensors", size, digest),
            FileEntry("config.json", 2, small),
            FileEntry("tokenizer.json", 2, small),
        ]
        admit(
            stores.store, stores.blobs, run="run", step=10, tokens=None, files=files,
            in_place=True, now=NOW, new_id=world.new_id,
        )  # fmt: skip
        put(stores.blobs, b"h")  # the world's held-out file
        reconcile(stores.store, stores.blobs, now=NOW, new_id=world.new_id)
        yield stores, world, source


def test_a_file_that_is_gone_at_the_start_is_lost_until_it_is_registered_again(away) -> None:
    stores, world, source = away
    source.rename(source.with_name("elsewhere"))
    found = reconcile(stores.store, stores.blobs, now=NOW, new_id=world.new_id)
    assert found.lost == (DIGEST,)
    assert world.all(CheckpointRecord)[0].missing == ("lost: model.safetensors",)
    source.with_name("elsewhere").rename(source)
    assert stores.blobs.path(DIGEST) == source, "as after a disk is mounted again"


def test_a_backup_holds_a_copy_that_no_trainer_can_write_to(away, tmp_path) -> None:
    _, _, source = away
    back_up(tmp_path / "data", tmp_path / "backup", now=NOW)
    rewrite(source, MODEL[::-1])
    restore(tmp_path / "backup", tmp_path / "restored")
    with stores_in(tmp_path / "restored") as restored:
        assert read(restored.blobs, DIGEST) == MODEL
        assert restored.blobs.is_own(DIGEST)


def test_a_scrub_reads_the_file_where_it_lies_and_never_moves_it(away, tmp_path) -> None:
    stores, _, source = away
    assert not scrub(tmp_path / "data").wrong
    before = source.stat().st_mtime_ns
    source.write_bytes(MODEL[::-1])
    os.utime(source, ns=(before, before))  # as a disk that loses bits: nothing shows from outside
    found = scrub(tmp_path / "data", repair=True)
    assert [(wrong.digest, wrong.what) for wrong in found.wrong] == [(str(DIGEST), "damaged")]
    assert source.read_bytes() == MODEL[::-1]
    assert stores.blobs.size(DIGEST) is None, "only the note was moved aside"
