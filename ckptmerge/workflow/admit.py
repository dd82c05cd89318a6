"""1. A checkpoint arrives at a service: its blobs are verified, and it is put on record."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ckptmerge.domain.checkpoint import Checkpoint, FileEntry, Manifest, require_one_model
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import StepExistsError
from ckptmerge.formats.side_files import is_side_file
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import CheckpointRecord, EventRecord, RunRecord
from ckptmerge.storage.store import Store, Unit
from ckptmerge.workflow.blob_files import laid_out
from ckptmerge.workflow.blob_records import LOST, put_files_on_record
from ckptmerge.workflow.open_studies import complete_checkpoints, open_due
from ckptmerge.workflow.register import missing_side_files, register
from ckptmerge.workflow.stored import require


@dataclass(frozen=True)
class Admission:
    """What came of it: the record, and whether it is new."""

    record: CheckpointRecord
    new: bool


def admit(
    store: Store,
    blobs: BlobStore,
    *,
    run: str,
    step: int | None,
    tokens: int | None,
    files: Sequence[FileEntry],
    next_attempt: bool = False,
    now: float,
    new_id: Callable[[str], str],
) -> Admission:
    """Register a checkpoint whose files are blobs, and open a study where one is due.

    Every byte of the weights is read once and checked before anything is recorded. The same files
    at the same step again change nothing, but bring back a checkpoint whose bytes are gone.

    Args:
        store: Where it is recorded.
        blobs: Where its files are.
        run: Its run.
        step: Training step; None takes it from ``trainer_state.json``.
        tokens: Tokens seen so far, where known.
        files: All files of the checkpoint; side files it lacks are the run's.
        next_attempt: Whether training was rolled back: the checkpoint begins a new attempt.
        now: Seconds since 1970.
        new_id: Makes an id.

    Raises:
        MissingError: the run or a blob is not there.
        CheckpointFormatError: the files are no safetensors model, or hold NaN or infinity.
        IncompatibleCheckpointsError: it is not a checkpoint of the run's model.
        StepExistsError: the run has other bytes at this step.
    """
    given = Manifest(tuple(sorted(files)), ()).digest
    with store.read() as snapshot:
        record = require(snapshot, RunRecord, run, "run")
        known = _known(snapshot.find(CheckpointRecord, run=run), given)
    if known is not None and step in {None, known.step} and _is_held(known, blobs):
        return Admission(known, new=False)
    everything = _with_files_of_run(files, record)
    with store.write() as unit:
        # Their time of grace begins anew: reading them may take long, and nothing names them yet.
        put_files_on_record(unit, blobs, everything, now=now)
    with laid_out(blobs, everything) as folder:
        checkpoint = register(folder, step=step)
        missing = missing_side_files(folder)
    checkpoint = replace(checkpoint, tokens=tokens if tokens is not None else checkpoint.tokens)
    with store.write() as unit:
        record = require(unit, RunRecord, run, "run")
        if next_attempt:
            record = unit.update(replace(record, attempt=record.attempt + 1, considered=0))
        before = _at_step(unit, record, checkpoint.step)
        if before is not None and before.given != given:
            raise StepExistsError(_step_exists(before))
        if before is not None and _is_held(before, blobs):
            return Admission(before, new=False)
        _require_one_model(complete_checkpoints(unit, record), checkpoint)
        put_files_on_record(unit, blobs, checkpoint.manifest.files, now=now)
        if before is None:
            added = unit.insert(
                CheckpointRecord(
                    id=new_id("c"),
                    run=run,
                    attempt=record.attempt,
                    step=checkpoint.step,
                    tokens=checkpoint.tokens,
                    manifest=checkpoint.manifest,
                    given=given,
                    missing=missing,
                    created=now,
                )
            )
        else:
            brought_back = replace(before, manifest=checkpoint.manifest, missing=missing)
            added = unit.update(replace(brought_back, removed=None))
        _record_event(unit, added, now=now, new_id=new_id)
        open_due(unit, record, now=now, new_id=new_id)
        return Admission(added, new=True)


def complete(
    unit: Unit, blobs: BlobStore, run: RunRecord, *, now: float, new_id: Callable[[str], str]
) -> list[CheckpointRecord]:
    """Give checkpoints that came without them the side files that the run has by now.

    Returns those that nothing is missing of any more; a study is opened where one is due.

    Raises:
        MissingError: a blob is not there.
    """
    completed = []
    for record in unit.find(CheckpointRecord, run=run.name):
        if not record.missing or record.removed is not None or not _has_bytes(record, blobs):
            continue
        files = _with_files_of_run(record.manifest.files, run)
        with laid_out(blobs, files) as folder:
            missing = missing_side_files(folder)
        manifest = Manifest(tuple(sorted(files)), record.manifest.tensors)
        changed = unit.update(replace(record, manifest=manifest, missing=missing))
        if not missing:
            completed.append(changed)
            _record_event(unit, changed, now=now, new_id=new_id)
    if completed:
        open_due(unit, run, now=now, new_id=new_id)
    return completed


def _known(records: Sequence[CheckpointRecord], given: Digest) -> CheckpointRecord | None:
    return next((record for record in reversed(records) if record.given == given), None)


def _is_held(record: CheckpointRecord, blobs: BlobStore) -> bool:
    """Say whether a checkpoint is still what it was: neither given up by retention, nor lost."""
    lost = any(what.startswith(LOST) for what in record.missing)
    return record.removed is None and not lost and _has_bytes(record, blobs)


def _has_bytes(record: CheckpointRecord, blobs: BlobStore) -> bool:
    return all(blobs.size(file.digest) == file.size for file in record.manifest.files)


def _with_files_of_run(files: Sequence[FileEntry], run: RunRecord) -> tuple[FileEntry, ...]:
    """Add the run's side files where the checkpoint brings none of that name."""
    own = {file.name for file in files}
    lent = (file for file in run.files if file.name not in own and is_side_file(file.name))
    return (*files, *lent)


def _at_step(unit: Unit, run: RunRecord, step: int) -> CheckpointRecord | None:
    found = unit.find(CheckpointRecord, run=run.name, step=step)
    return next((record for record in found if record.attempt == run.attempt), None)


def _step_exists(before: CheckpointRecord) -> str:
    return (
        f"run {before.run!r} has other bytes at step {before.step} (checkpoint {before.id}). If "
        "training was rolled back and goes on from an earlier step, post with ?attempt=next"
    )


def _require_one_model(before: Sequence[CheckpointRecord], checkpoint: Checkpoint) -> None:
    if before:
        last = before[-1]
        require_one_model(
            [f"step {last.step}", f"step {checkpoint.step}"],
            [last.manifest.signature, checkpoint.manifest.signature],
        )


def _record_event(
    unit: Unit, added: CheckpointRecord, *, now: float, new_id: Callable[[str], str]
) -> None:
    data = {"checkpoint": added.id, "step": added.step, "missing": list(added.missing)}
    unit.insert(
        EventRecord(
            id=new_id("v"), run=added.run, kind="checkpoint-registered", data=data, created=now
        )
    )
