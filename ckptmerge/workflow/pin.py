"""Put something in the place of a run's best by hand, and take it away again; both on record."""

from collections.abc import Callable
from dataclasses import replace

from ckptmerge.errors import InvalidInputError, MissingError, RefusedError
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import (
    ArtifactRecord,
    CheckpointRecord,
    EventRecord,
    Pin,
    RunRecord,
)
from ckptmerge.storage.store import Snapshot, Unit


def pin_best(
    unit: Unit,
    blobs: BlobStore,
    run: RunRecord,
    *,
    artifact: str | None = None,
    checkpoint: str | None = None,
    reason: str,
    now: float,
    new_id: Callable[[str], str],
) -> RunRecord:
    """Serve a merge or checkpoint of the run as its best, whatever studies find, until unpinned.

    The same subject for the same reason again changes nothing.

    Args:
        unit: Where the run lives.
        blobs: Where the subject's bytes must be.
        run: The run.
        artifact: Id of a merge that was promoted once.
        checkpoint: Id of a complete checkpoint; one of the two is given.
        reason: Why; shown with the best and kept in the events.
        now: Seconds since 1970.
        new_id: Makes an id.

    Raises:
        InvalidInputError: neither or both are given.
        MissingError: the run has no such merge or checkpoint, or the merge was never promoted.
        RefusedError: the checkpoint is incomplete, or bytes are no longer there.
    """
    if artifact is not None and checkpoint is None:
        subject = _promoted(unit, run, artifact)
    elif checkpoint is not None and artifact is None:
        subject = _complete(unit, run, checkpoint)
    else:
        raise InvalidInputError("pin either an 'artifact' or a 'checkpoint', by its id")
    _require_bytes(blobs, subject)
    if run.pin is not None and (run.pin.subject, run.pin.reason) == (subject.id, reason):
        return run
    pinned = replace(run, pin=Pin(subject=subject.id, reason=reason, at=now))
    return _recorded(unit, run, pinned, "best-pinned", reason=reason, now=now, new_id=new_id)


def unpin_best(
    unit: Unit, run: RunRecord, *, now: float, new_id: Callable[[str], str]
) -> RunRecord:
    """Serve what was promoted last again, or the newest checkpoint; unpinned already is fine."""
    if run.pin is None:
        return run
    free = replace(run, pin=None)
    return _recorded(
        unit, run, free, "best-unpinned", reason=run.pin.reason, now=now, new_id=new_id
    )


def served(run: RunRecord) -> str | None:
    """Return the id of what is served as best; None means the newest checkpoint."""
    return run.best if run.pin is None else run.pin.subject


def _recorded(
    unit: Unit,
    before: RunRecord,
    after: RunRecord,
    kind: str,
    *,
    reason: str,
    now: float,
    new_id: Callable[[str], str],
) -> RunRecord:
    data = {"reason": reason, "before": served(before), "after": served(after)}
    unit.insert(EventRecord(id=new_id("v"), run=after.name, kind=kind, data=data, created=now))
    return unit.update(after)


def _promoted(snapshot: Snapshot, run: RunRecord, key: str) -> ArtifactRecord:
    artifact = snapshot.get(ArtifactRecord, key)
    if artifact is None or artifact.run != run.name or not artifact.promoted:
        raise MissingError(
            f"run {run.name!r} never promoted an artifact {key!r}; the verdicts of "
            f"GET /v1/studies?run={run.name} name those that it did"
        )
    return artifact


def _complete(snapshot: Snapshot, run: RunRecord, key: str) -> CheckpointRecord:
    checkpoint = snapshot.get(CheckpointRecord, key)
    if checkpoint is None or checkpoint.run != run.name:
        raise MissingError(
            f"run {run.name!r} has no checkpoint {key!r}; "
            f"GET /v1/runs/{run.name}/checkpoints lists those it has"
        )
    if checkpoint.missing:
        raise RefusedError(
            f"checkpoint {key} (step {checkpoint.step}) cannot be served: "
            f"{', '.join(checkpoint.missing)} missing; give the run these files first"
        )
    return checkpoint


def _require_bytes(blobs: BlobStore, subject: ArtifactRecord | CheckpointRecord) -> None:
    files = subject.manifest.files
    if subject.removed is not None or any(blobs.size(f.digest) != f.size for f in files):
        raise RefusedError(
            f"{subject.id} cannot be served: its bytes were removed; "
            "name one whose bytes are still there"
        )
