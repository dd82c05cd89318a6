"""Collect blobs that no record names any more, or that nobody ever came to name."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import (
    ArtifactRecord,
    BlobRecord,
    CheckpointRecord,
    HeldOutRecord,
    RunRecord,
    StudyRecord,
    TaskRecord,
)
from ckptmerge.storage.store import Snapshot, Store
from ckptmerge.workflow.cancel import GOING
from ckptmerge.workflow.stored import every


@dataclass(frozen=True)
class Collected:
    """What was deleted."""

    blobs: int
    bytes: int


def collect(
    store: Store, blobs: BlobStore, *, now: float, grace: float, urgent: bool = False
) -> Collected:
    """Delete every blob that nobody's record names and that has been on record for long enough.

    Looking is done on a snapshot, so nobody waits for it. A blob is deleted within a unit of its
    own, and only where its row is still as it was seen: see `ckptmerge.workflow.blob_records`.
    A download that has begun goes on unharmed. A kill between bytes and commit leaves a row
    without bytes that no record relies on, which the next start drops.

    Args:
        store: Where records are.
        blobs: Where bytes are.
        now: Seconds since 1970.
        grace: Seconds that a blob stays after it was last put on record: uploads come before the
            checkpoint that names them.
        urgent: Whether the disk is nearly full: then what retention has let go has no grace.
    """
    with store.read() as snapshot:
        named = named_blobs(snapshot)
        at_once = _given_up(snapshot) if urgent else frozenset[str]()
        found = [
            row
            for row in every(snapshot, BlobRecord)
            if (row.created + grace <= now or row.hex in at_once)
            and not row.lasting
            and row.hex not in named
        ]
    freed: list[int] = []
    for row in found:
        with store.write() as unit:
            if unit.get(BlobRecord, row.hex) != row:
                continue
            unit.delete(BlobRecord, row.hex)
            blobs.delete(Digest(row.hex))
            freed.append(row.size)
    return Collected(len(freed), sum(freed))


def named_blobs(snapshot: Snapshot, *, without: Collection[str] = ()) -> set[str]:
    """Return, in hexadecimal, what records name: all but scores, whose rows say that they last.

    Args:
        snapshot: The records.
        without: Ids of checkpoints and merges to leave out, as if their bytes were given up.
    """
    files = _files(snapshot, frozenset(without))
    return {file.digest.hex for file in files} | set(_of_going_studies(snapshot))


def _given_up(snapshot: Snapshot) -> frozenset[str]:
    """Return, in hexadecimal, the files of checkpoints and merges whose bytes were let go."""
    records = (*every(snapshot, CheckpointRecord), *every(snapshot, ArtifactRecord))
    gone = (record.manifest.files for record in records if record.removed is not None)
    return frozenset(file.digest.hex for files in gone for file in files)


def _files(snapshot: Snapshot, without: frozenset[str]) -> Iterator[FileEntry]:
    for run in every(snapshot, RunRecord):
        yield from run.files
    for held_out in every(snapshot, HeldOutRecord):
        yield held_out.file
    for checkpoint in every(snapshot, CheckpointRecord):
        if checkpoint.removed is None and checkpoint.id not in without:
            yield from checkpoint.manifest.files
    for artifact in every(snapshot, ArtifactRecord):
        if artifact.removed is None and artifact.id not in without:
            yield from artifact.manifest.files


def _of_going_studies(snapshot: Snapshot) -> Iterator[str]:
    """Name what workers have handed in for studies that will come back for it."""
    for state in GOING:
        for study in every(snapshot, StudyRecord, state=state):
            for record in every(snapshot, TaskRecord, study=study.id):
                outcome = record.task.outcome
                if outcome is not None:
                    yield from (file.digest.hex for file in outcome.files)
                    yield from (d.hex for d in (outcome.scores, outcome.repeated) if d is not None)
