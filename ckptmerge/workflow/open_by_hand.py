"""2b. Open a study because somebody asks for it, over the checkpoints that they choose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ckptmerge.config.study import StudySpec as StudyFile
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError, MissingError, RefusedError
from ckptmerge.storage.records import CheckpointRecord, Opening, RunRecord, StudyRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.studies import NewStudy
from ckptmerge.workflow.cancel import going_on
from ckptmerge.workflow.open_studies import complete_checkpoints, record_study
from ckptmerge.workflow.stored import require

REMEMBERED = 1000
"""Newest studies among which an Idempotency-Key is looked for; older ones have expired."""


@dataclass(frozen=True)
class Opened:
    """What came of it: the study, and whether it is new."""

    record: StudyRecord
    new: bool


def open_by_hand(
    unit: Unit, wanted: NewStudy, *, key: str | None, now: float, new_id: Callable[[str], str]
) -> Opened:
    """Open a study over chosen checkpoints; the same request under the same key changes nothing.

    The run's own window policy goes on as if nothing had been opened.

    Args:
        unit: Where the run lives.
        wanted: Which checkpoints, and how to search them.
        key: The request's Idempotency-Key (draft-ietf-httpapi-idempotency-key-header).
        now: Seconds since 1970.
        new_id: Makes an id.

    Raises:
        MissingError: there is no such run or checkpoint.
        RefusedError: a study of the run goes on.
        InvalidInputError: the checkpoints make no window, the specification does not fit them, or
            the key came with another request before.
        IncompatibleCheckpointsError: the checkpoints are not of one model.
    """
    opening = Opening(key=key, body=Digest.of_json(wanted.model_dump(exclude_unset=True)))
    known = None if key is None else _opened_with(unit, opening)
    if known is not None:
        return Opened(known, new=False)
    run = require(unit, RunRecord, wanted.run, "run")
    for study in going_on(unit, run.name):
        raise RefusedError(
            f"study {study.id} of run {run.name!r} is {study.state}, and a run has one at a time; "
            f'wait for it, or end it with PATCH /v1/studies/{study.id} {{"state": "cancelled"}}'
        )
    window = _window(unit, run, wanted)
    _require_usable(window)
    file = _merged(run, wanted.study)
    record = record_study(unit, run, window, file, opening=opening, now=now, new_id=new_id)
    return Opened(record, new=True)


def _opened_with(unit: Unit, opening: Opening) -> StudyRecord | None:
    """Return the study that this very request opened.

    Raises:
        InvalidInputError: the key came with another request.
    """
    recent = unit.find(StudyRecord, newest_first=True, limit=REMEMBERED)
    known = next((s for s in recent if s.opening and s.opening.key == opening.key), None)
    if known is not None and known.opening != opening:
        raise InvalidInputError(
            f"the Idempotency-Key {opening.key!r} came with another request before, which opened "
            f"study {known.id}; send a new key with a new request"
        )
    return known


def _merged(run: RunRecord, study: StudyFile | None) -> StudyFile:
    """Return how to search: as the run says, but for what the request says otherwise."""
    said = {} if study is None else study.model_dump(exclude_unset=True)
    return StudyFile.model_validate({**run.study, **said})


def _window(unit: Unit, run: RunRecord, wanted: NewStudy) -> list[CheckpointRecord]:
    """Return the checkpoints that are asked for, in the order in which they are."""
    given = [name for name in ("steps", "checkpoints", "window") if getattr(wanted, name)]
    if len(given) != 1:
        raise InvalidInputError(
            "say which checkpoints by one of 'steps', 'checkpoints' (ids) and 'window' (so many of "
            f"the newest), not by {' and '.join(given) or 'none of them'}"
        )
    if wanted.steps is not None:
        return _at_steps(unit, run, wanted.steps)
    if wanted.checkpoints is not None:
        return [_by_id(unit, run, checkpoint) for checkpoint in wanted.checkpoints]
    return _newest(unit, run, wanted.window or 0)


def _at_steps(snapshot: Snapshot, run: RunRecord, steps: Sequence[int]) -> list[CheckpointRecord]:
    """Return the checkpoints at these steps, of the latest attempt that has all of them."""
    checkpoints = snapshot.find(CheckpointRecord, run=run.name)
    found = {(c.attempt, c.step): c for c in checkpoints if c.superseded_by is None}
    for attempt in sorted({attempt for attempt, _ in found}, reverse=True):
        if all((attempt, step) in found for step in steps):
            return [found[attempt, step] for step in steps]
    lacking = [step for step in steps if all(step != known for _, known in found)]
    raise MissingError(
        f"run {run.name!r} has no checkpoint at step {', '.join(map(str, lacking))}"
        if lacking
        else f"no attempt of run {run.name!r} has checkpoints at all of these steps"
    )


def _by_id(snapshot: Snapshot, run: RunRecord, key: str) -> CheckpointRecord:
    record = require(snapshot, CheckpointRecord, key, "checkpoint")
    if record.run != run.name:
        raise InvalidInputError(f"checkpoint {key} is of run {record.run!r}, not of {run.name!r}")
    return record


def _newest(unit: Unit, run: RunRecord, size: int) -> list[CheckpointRecord]:
    usable = _usable(unit, run)
    if len(usable) < size:
        raise InvalidInputError(
            f"run {run.name!r} has {len(usable)} complete checkpoints, not {size}; ask for fewer"
        )
    return usable[-size:]


def _usable(unit: Unit, run: RunRecord) -> list[CheckpointRecord]:
    return [c for c in complete_checkpoints(unit, run) if c.removed is None]


def _require_usable(window: Sequence[CheckpointRecord]) -> None:
    """Check that the checkpoints are of one attempt and have all their bytes.

    Raises:
        InvalidInputError: they are not.
    """
    attempts = sorted({checkpoint.attempt for checkpoint in window})
    if len(attempts) > 1:
        raise InvalidInputError(
            f"these checkpoints are of attempts {', '.join(map(str, attempts))}; training went "
            "another way in each, so choose checkpoints of one"
        )
    for checkpoint in window:
        if checkpoint.removed is not None:
            raise InvalidInputError(
                f"the bytes of checkpoint {checkpoint.id} (step {checkpoint.step}) were removed; "
                "send them again, or leave it out"
            )
        if checkpoint.missing:
            raise InvalidInputError(
                f"checkpoint {checkpoint.id} (step {checkpoint.step}) lacks "
                f"{', '.join(checkpoint.missing)}; give the run these files first"
            )
