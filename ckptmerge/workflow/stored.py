"""A study as the store knows it: its record, its window and its tasks, put together."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ckptmerge.domain.checkpoint import Checkpoint
from ckptmerge.domain.observation import Split
from ckptmerge.domain.study import Study
from ckptmerge.domain.task import TaskState
from ckptmerge.domain.trial import Trial
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.domain.window import Window
from ckptmerge.errors import MissingError
from ckptmerge.storage.records import (
    CheckpointRecord,
    HeldOutRecord,
    R,
    RunRecord,
    StudyRecord,
    TaskRecord,
)
from ckptmerge.storage.store import Snapshot

_PAGE = 500
"""Records held at once by whoever goes through all of them."""


@dataclass(frozen=True)
class StoredStudy:
    """Everything that is known of one study at one moment."""

    record: StudyRecord
    run: RunRecord
    held_out: HeldOutRecord
    study: Study
    tasks: tuple[TaskRecord, ...]

    def task(self, name: str) -> TaskRecord | None:
        """Return the task of that name."""
        return next((task for task in self.tasks if task.task.name == name), None)

    def of_trial(self, index: int) -> TaskRecord:
        """Return the task that measures a trial."""
        return next(task for task in self.tasks if task.task.trial == index)


def require(snapshot: Snapshot, kind: type[R], key: str, what: str) -> R:
    """Return a record.

    Raises:
        MissingError: there is none; ``what`` says what it would have been.
    """
    record = snapshot.get(kind, key)
    if record is None:
        raise MissingError(
            f"there is no {what} {key!r}; check the name, and whether this is the service you mean"
        )
    return record


def every(snapshot: Snapshot, kind: type[R], /, **equal: Any) -> Iterator[R]:
    """Go through all records of a kind, however many there are, a page at a time."""
    after: str | None = None
    while page := snapshot.find(kind, after=after, limit=_PAGE, **equal):
        yield from page
        after = getattr(page[-1], kind.KEY)


def load_study(snapshot: Snapshot, key: str) -> StoredStudy:
    """Put a study together.

    Raises:
        MissingError: there is no such study.
    """
    record = require(snapshot, StudyRecord, key, "study")
    tasks = tuple(snapshot.find(TaskRecord, study=key))
    checkpoints = [require(snapshot, CheckpointRecord, c, "checkpoint") for c in record.checkpoints]
    trials = sorted(
        (_trial(task) for task in tasks if task.task.trial is not None), key=lambda t: t.index
    )
    study = Study(
        window=Window(tuple(map(as_checkpoint, checkpoints))),
        spec=record.spec,
        trials=tuple(trials),
        state=record.state,
        winner=record.winner,
        stopped=record.stopped,
    )
    return StoredStudy(
        record=record,
        run=require(snapshot, RunRecord, record.run, "run"),
        held_out=require(snapshot, HeldOutRecord, record.held_out, "held-out set"),
        study=study,
        tasks=tasks,
    )


def at_step(snapshot: Snapshot, run: str, step: int) -> CheckpointRecord:
    """Return the checkpoint that stands at a step, of the latest attempt that has one.

    Raises:
        MissingError: there is none.
    """
    found = snapshot.find(CheckpointRecord, run=run, step=step)
    standing = [checkpoint for checkpoint in found if checkpoint.superseded_by is None]
    if not standing:
        raise MissingError(f"run {run!r} has no checkpoint at step {step}")
    return max(standing, key=lambda checkpoint: checkpoint.attempt)


def as_checkpoint(record: CheckpointRecord) -> Checkpoint:
    """Return the domain's checkpoint; in a service its label is its id."""
    return Checkpoint(
        label=record.id,
        step=record.step,
        manifest=record.manifest,
        attempt=record.attempt,
        tokens=record.tokens,
    )


def _trial(record: TaskRecord) -> Trial:
    """Derive a trial from the task that measures it; they are one row and cannot disagree."""
    task = record.task
    trial = Trial(task.trial or 0, task.order.weights or MergeWeights.of(1.0), record.baseline)
    trial = replace(trial, reused=record.reused)
    if record.observation is not None:
        return trial.observed(record.observation)
    if task.state is TaskState.DONE and task.outcome and task.outcome.status == "infeasible":
        return trial.infeasible(task.outcome.reason or "the loss was not finite")
    if task.state in {TaskState.FAILED, TaskState.CANCELLED}:
        return trial.failed(task.reason or str(task.state))
    return trial


def untold(stored: StoredStudy) -> tuple[TaskRecord, ...]:
    """Return the search's tasks whose scores are there and were not reduced yet."""
    return tuple(
        record
        for record in stored.tasks
        if record.task.trial is not None
        and record.task.order.split is Split.SEARCH
        and record.task.state is TaskState.DONE
        and record.task.outcome is not None
        and record.task.outcome.status == "ok"
        and record.observation is None
    )
