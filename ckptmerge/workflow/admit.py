"""1. A checkpoint arrives at a service: its blobs are verified, and it is put on record."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ckptmerge.domain.audit_log import Actor
from ckptmerge.domain.checkpoint import Checkpoint, FileEntry, Manifest, require_one_model
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError, StepExistsError
from ckptmerge.formats.manifest import require_model_files
from ckptmerge.formats.side_file_gate import check_side_files
from ckptmerge.formats.side_files import is_side_file
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import CheckpointRecord, EventRecord, RunRecord
from ckptmerge.storage.store import Store, Unit
from ckptmerge.workflow.audit_log import record_act
from ckptmerge.workflow.blob_files import laid_out
from ckptmerge.workflow.blob_records import LOST, put_files_on_record
from ckptmerge.workflow.open_studies import open_due, standing_checkpoints
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
    supersede: bool = False,
    in_place: bool = False,
    by: Actor | None = None,
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
        supersede: Whether it takes the place of another one at its step, where there is one.
        in_place: Whether its weights lie where the trainer wrote them, and stay there.
        by: Who sends it, for the audit log where it takes another one's place.
        now: Seconds since 1970.
        new_id: Makes an id.

    Raises:
        MissingError: the run or a blob is not there.
        CheckpointFormatError: the files are no safetensors model, or hold NaN or infinity.
        IncompatibleCheckpointsError: it is not a checkpoint of the run's model.
        StepExistsError: the run has other bytes at this step.
        InvalidInputError: it can begin a new attempt or take another's place, not both.
    """
    if next_attempt and supersede:
        raise InvalidInputError(
            "a checkpoint begins a new attempt (attempt=next) or takes the place of the one at its "
            "step (supersede=true), not both; say which"
        )
    require_model_files([file.name for file in files])
    given = Manifest(tuple(sorted(files)), ()).digest
    with store.read() as snapshot:
        record = require(snapshot, RunRecord, run, "run")
        known = _known(snapshot.find(CheckpointRecord, run=run), given)
    if known is not None and step in {None, known.step} and _stands(known, blobs, in_place):
        return Admission(known, new=False)
    everything = _with_files_of_run(files, record)
    with store.write() as unit:
        # Their time of grace begins anew: reading them may take long, and nothing names them yet.
        put_files_on_record(unit, blobs, everything, now=now)
    with laid_out(blobs, everything) as folder:
        check_side_files(folder)
        checkpoint = register(folder, step=step)
        missing = missing_side_files(folder)
    checkpoint = replace(checkpoint, tokens=tokens if tokens is not None else checkpoint.tokens)
    arrival = _Arrival(checkpoint, given, missing, in_place=in_place, supersedes=supersede, by=by)
    with store.write() as unit:
        record = require(unit, RunRecord, run, "run")
        if next_attempt:
            record = unit.update(replace(record, attempt=record.attempt + 1, considered=0))
        admission = _enter(unit, blobs, record, arrival, now=now, new_id=new_id)
        if admission.new:
            open_due(unit, record, now=now, new_id=new_id)
        return admission


@dataclass(frozen=True)
class _Arrival:
    """A checkpoint whose bytes were all read, and found to be those of a model."""

    checkpoint: Checkpoint
    given: Digest
    missing: tuple[str, ...]
    in_place: bool
    supersedes: bool
    by: Actor | None

    def record(self, key: str, run: RunRecord, *, now: float) -> CheckpointRecord:
        """Return what is put on record of it."""
        return CheckpointRecord(
            id=key, run=run.name, attempt=run.attempt, step=self.checkpoint.step,
            tokens=self.checkpoint.tokens, manifest=self.checkpoint.manifest, given=self.given,
            missing=self.missing, in_place=self.in_place, created=now,
        )  # fmt: skip


def _enter(
    unit: Unit,
    blobs: BlobStore,
    run: RunRecord,
    arrival: _Arrival,
    *,
    now: float,
    new_id: Callable[[str], str],
) -> Admission:
    """Put a checkpoint on record: as a new one, in another's place, or as one that is back."""
    before = _at_step(unit, run, arrival.checkpoint.step)
    same = before is not None and before.given == arrival.given
    if before is not None and not same and not arrival.supersedes:
        raise StepExistsError(_step_exists(before))
    if before is not None and same and _stands(before, blobs, arrival.in_place):
        return Admission(before, new=False)
    if before is not None and same:
        manifest, missing = arrival.checkpoint.manifest, arrival.missing
        back = replace(before, manifest=manifest, missing=missing, in_place=arrival.in_place)
        added = unit.update(replace(back, removed=None))
    else:
        added = unit.insert(arrival.record(new_id("c"), run, now=now))
        if before is not None:
            _supersede(unit, before, added, by=arrival.by, now=now, new_id=new_id)
    # Also beside those that wait for side files: once they have them, they enter windows together.
    others = [c for c in standing_checkpoints(unit, run) if c.id != added.id]
    _require_one_model(others, arrival.checkpoint)
    put_files_on_record(unit, blobs, arrival.checkpoint.manifest.files, now=now)
    _record_event(unit, added, now=now, new_id=new_id)
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
        gone = record.removed is not None or record.superseded_by is not None
        if not record.missing or gone or not _has_bytes(record, blobs):
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
    standing = (record for record in reversed(records) if record.superseded_by is None)
    return next((record for record in standing if record.given == given), None)


def _stands(record: CheckpointRecord, blobs: BlobStore, in_place: bool) -> bool:
    """Say whether nothing has to be done for the same files to be there again.

    One that lies where the trainer wrote it is not yet what somebody else has sent to be kept.
    """
    return _is_held(record, blobs) and (in_place or not record.in_place)


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
    standing = (record for record in found if record.superseded_by is None)
    return next((record for record in standing if record.attempt == run.attempt), None)


def _supersede(
    unit: Unit,
    before: CheckpointRecord,
    added: CheckpointRecord,
    *,
    by: Actor | None,
    now: float,
    new_id: Callable[[str], str],
) -> None:
    """Let one checkpoint take another's place; what named the other goes on naming it."""
    unit.update(replace(before, superseded_by=added.id))
    data = {"checkpoint": before.id, "by": added.id, "step": before.step}
    unit.insert(
        EventRecord(
            id=new_id("v"), run=before.run, kind="checkpoint-superseded", data=data, created=now
        )
    )
    if by is not None:
        place = f"runs/{before.run}/checkpoints/{before.step}"
        what = {"before": before.id, "after": added.id}
        record_act(unit, by, "supersede-checkpoint", place, now=now, **what)


def _step_exists(before: CheckpointRecord) -> str:
    return (
        f"run {before.run!r} has other bytes at step {before.step} (checkpoint {before.id}). If "
        "training was rolled back and goes on from an earlier step, post with ?attempt=next; if "
        "those bytes were wrong and these take their place, with ?supersede=true"
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
