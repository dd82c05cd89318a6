"""Collection: what nothing names goes in time, and what is named meanwhile is never touched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.run import Era, Run
from ckptmerge.domain.task import Outcome, TaskState
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import MissingError
from ckptmerge.storage.blobs import put
from ckptmerge.storage.records import (
    ArtifactRecord,
    BlobRecord,
    CheckpointRecord,
    HeldOutRecord,
    RunRecord,
    StudyRecord,
    WindowPolicy,
)
from ckptmerge.storage.store import Snapshot
from ckptmerge.workflow.admit import Admission, admit
from ckptmerge.workflow.blob_records import put_on_record
from ckptmerge.workflow.cancel import cancel_study
from ckptmerge.workflow.collect import Collected, collect
from ckptmerge.workflow.tasks import save
from tests.unit.workflow.conducted import World

GRACE = 100.0
LATER = 1000.0
"""Long after whatever came at 0."""


class Disk(World):
    """A world in which what nothing names is collected."""

    def collect(self, now: float = LATER) -> Collected:
        return collect(self.store, self.blobs, now=now, grace=GRACE)

    def put(self, content: bytes, *, now: float = 0.0, lasting: bool = False) -> Digest:
        digest = put(self.blobs, content)
        with self.store.write() as unit:
            put_on_record(unit, self.blobs, digest, now=now, lasting=lasting)
        return digest

    def change(self, record) -> None:
        with self.store.write() as unit:
            unit.update(record)

    def register(self, step: int, files: list[FileEntry]) -> Admission:
        return admit(
            self.store, self.blobs, run="run", step=step, tokens=None, files=files, now=0.0,
            new_id=self.new_id,
        )  # fmt: skip

    def is_there(self, *digests: Digest) -> bool:
        """Say whether all of them are there, row and bytes; some alone are a failure."""
        rows = {row.hex for row in self.all(BlobRecord)}
        there = [(d.hex in rows, self.blobs.size(d) is not None) for d in digests]
        assert all(row == found for row, found in there)
        return all(row for row, _ in there)

    def meanwhile(self, happens: Callable[[], object]) -> None:
        """Let something happen after the collector has looked and before it deletes."""
        read = self.store.read

        @contextmanager
        def look() -> Iterator[Snapshot]:
            self.store.read = read
            with read() as snapshot:
                yield snapshot
            happens()

        self.store.read = look


@pytest.fixture
def world() -> Disk:
    """A run that opens no studies."""
    world = Disk()
    world.change(replace(world.all(RunRecord)[0], window=WindowPolicy(size=2, minimum=64)))
    return world


def weights(record: CheckpointRecord) -> Digest:
    return next(f.digest for f in record.manifest.files if f.name == "model.safetensors")


def test_an_upload_that_nobody_came_to_name_goes_after_its_time_of_grace(world: Disk) -> None:
    digest = world.put(b"nobody's", now=50.0)
    assert world.collect(now=149.9) == Collected(0, 0)
    assert world.is_there(digest)
    assert world.collect(now=150.0) == Collected(1, 8)
    assert not world.is_there(digest)


def test_an_upload_that_is_sent_again_has_its_time_again(world: Disk) -> None:
    digest = world.put(b"nobody's", now=0.0)
    world.put(b"nobody's", now=90.0)
    assert world.collect(now=150.0).blobs == 0
    assert world.is_there(digest)


def test_a_blob_without_a_row_is_left_to_the_next_start(world: Disk) -> None:
    digest = put(world.blobs, b"just arriving")
    assert world.collect().blobs == 0
    assert world.blobs.size(digest) == 13


def test_what_a_checkpoint_names_stays_until_it_is_removed(world: Disk) -> None:
    record = world.arrive(10).record
    assert world.collect().blobs == 0
    world.change(replace(record, removed=5.0))
    assert world.collect().blobs == 2
    assert not world.is_there(*(file.digest for file in record.manifest.files))


def test_a_file_that_two_checkpoints_share_stays_with_the_other(world: Disk) -> None:
    first, second = world.arrive(10).record, world.arrive(20).record
    world.change(replace(first, removed=5.0))
    assert world.collect().blobs == 1
    assert world.is_there(*(file.digest for file in second.manifest.files))
    assert not world.is_there(weights(first))


def test_bytes_that_another_run_has_too_stay(world: Disk) -> None:
    record, run = world.arrive(10).record, world.all(RunRecord)[0]
    with world.store.write() as unit:
        unit.insert(replace(run, name="twin", run=Run("twin", Era(run.run.era.held_out))))
        unit.insert(replace(record, id="c_twin", run="twin"))
    world.change(replace(record, removed=5.0))
    assert world.collect().blobs == 0


def test_what_an_artifact_names_stays_until_it_is_removed(world: Disk) -> None:
    record = world.arrive(10).record
    only = world.put(b"merged")
    manifest = replace(record.manifest, files=(FileEntry("model.safetensors", 6, only),))
    artifact = ArtifactRecord(
        id="a_1", run="run", study="s_1", name="winner", weights=MergeWeights.of(1.0), dtype="keep",
        manifest=manifest, promoted=True, created=0,
    )  # fmt: skip
    with world.store.write() as unit:
        unit.insert(artifact)
    assert world.collect().blobs == 0
    world.change(replace(artifact, removed=5.0))
    assert world.collect() == Collected(1, 6)


def test_documents_and_side_files_of_runs_stay(world: Disk) -> None:
    documents, tokenizer = world.put(b"documents"), world.put(b"tokenizer")
    held_out, run = world.all(HeldOutRecord)[0], world.all(RunRecord)[0]
    world.change(replace(held_out, file=FileEntry("held-out.jsonl", 9, documents)))
    world.change(replace(run, files=(FileEntry("tokenizer.json", 9, tokenizer),)))
    assert world.collect().blobs == 0
    assert world.is_there(documents, tokenizer)


def test_scores_stay_for_good(world: Disk) -> None:
    digest = world.put(b"scores", lasting=True)
    world.put(b"scores", now=1.0)
    assert world.collect().blobs == 0
    assert world.is_there(digest)


def test_what_a_worker_handed_in_stays_while_its_study_goes_on() -> None:
    world = Disk()
    world.arrive(10)
    world.arrive(20)
    assert world.conductor.advance(world.studies()[0].id)
    files = FileEntry("model.safetensors", 6, world.put(b"merged"))
    scores, again = world.put(b"scores"), world.put(b"again")
    record = world.lease()
    assert record is not None
    outcome = Outcome(status="ok", scores=scores, repeated=again, files=(files,))
    with world.store.write() as unit:
        done = replace(
            record.task, state=TaskState.DONE, worker=None, expires=None, outcome=outcome
        )
        save(unit, record, done)
    assert world.collect().blobs == 0
    with world.store.write() as unit:
        study = unit.find(StudyRecord)[0]
        cancel_study(unit, study, reason="by hand", now=0.0, new_id=world.new_id)
    assert world.collect().blobs == 3
    assert not world.is_there(files.digest)


def test_a_registration_between_look_and_deletion_loses_nothing(world: Disk) -> None:
    record = world.arrive(10).record
    world.change(replace(record, removed=5.0))
    loose = world.put(b"loose")
    world.meanwhile(lambda: world.arrive(10))
    assert world.collect() == Collected(1, 5)
    assert not world.is_there(loose)
    assert world.all(CheckpointRecord) == [record]
    assert world.is_there(*(file.digest for file in record.manifest.files))


def test_an_upload_between_look_and_deletion_loses_nothing(world: Disk) -> None:
    """Also where the clock stands still: it is the row's version that tells."""
    digest = world.put(b"wanted")
    world.meanwhile(lambda: world.put(b"wanted", now=0.0))
    assert world.collect().blobs == 0
    assert world.is_there(digest)


def test_a_registration_after_the_deletion_is_told_what_to_send(world: Disk) -> None:
    """The collector comes while every byte is being verified: nothing is recorded half."""
    record = world.arrive(10).record
    world.change(replace(record, removed=5.0))
    write, units = world.store.write, []

    @contextmanager
    def collected_before_the_second() -> Iterator[object]:
        units.append(1)
        if len(units) == 2:
            world.store.write = write
            assert world.collect().blobs == 2
        with write() as unit:
            yield unit

    world.store.write = collected_before_the_second
    files = [FileEntry(f.name, f.size, f.digest) for f in record.manifest.files]
    with pytest.raises(MissingError, match="was not uploaded; PUT it"):
        world.register(10, files)
    assert world.all(CheckpointRecord) == [replace(record, removed=5.0)]
    assert world.arrive(10).new
    assert world.is_there(*(file.digest for file in files))


def test_a_known_checkpoint_whose_bytes_have_vanished_is_asked_for_again(world: Disk) -> None:
    record = world.arrive(10).record
    world.blobs.delete(weights(record))
    with pytest.raises(MissingError, match="was not uploaded; PUT it"):
        world.register(10, list(record.manifest.files))


def test_a_download_that_has_begun_goes_on(world: Disk) -> None:
    digest = world.put(b"wanted by one")
    with world.blobs.open(digest) as reader:
        assert world.collect().blobs == 1
        assert reader.read(0, 100) == b"wanted by one"
    with pytest.raises(MissingError):
        world.blobs.open(digest)


def test_what_is_said_of_a_blob_lasts() -> None:
    world = Disk()
    digest = world.put(b"scores", now=1.0, lasting=True)
    world.put(b"scores", now=2.0)
    assert world.all(BlobRecord) == [
        BlobRecord(hex=digest.hex, size=6, created=2.0, version=1, lasting=True)
    ]
    with pytest.raises(MissingError, match="PUT it to /v1/blobs/sha256:"), world.store.write() as u:
        put_on_record(u, world.blobs, Digest.of_bytes(b"never sent"), now=0.0)
