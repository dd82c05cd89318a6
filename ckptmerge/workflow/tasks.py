"""Hand out tasks, hear from whoever holds them, and take back what a dead worker held."""

from collections.abc import Sequence
from dataclasses import replace

from ckptmerge.domain.task import Failure, Order, Outcome, Task, TaskKind, TaskState
from ckptmerge.storage.records import StudyRecord, TaskRecord
from ckptmerge.storage.store import Unit
from ckptmerge.workflow.known_scores import find_scores, keep_scores
from ckptmerge.workflow.stored import require


def add_task(
    unit: Unit,
    *,
    key: str,
    study: str,
    kind: TaskKind,
    name: str,
    order: Order,
    now: float,
    trial: int | None = None,
    baseline: str | None = None,
) -> TaskRecord:
    """Queue a task; one whose scores an earlier study has measured is done at once."""
    task = Task(id=key, study=study, kind=kind, name=name, order=order, trial=trial)
    known = find_scores(unit, require(unit, StudyRecord, study, "study"), kind, order)
    if known is not None:
        task = replace(task, state=TaskState.DONE, outcome=known)
    return unit.insert(
        TaskRecord(
            id=key, study=study, state=task.state, kind=kind, task=task, baseline=baseline,
            reused=known is not None, created=now,
        )
    )  # fmt: skip


def lease_task(
    unit: Unit,
    worker: str,
    kinds: Sequence[TaskKind],
    *,
    clock: float,
    ttl: float,
    longest: float | None = None,
    alone: bool = True,
) -> TaskRecord | None:
    """Give the worker the task that has waited longest, or None while there is none.

    A worker does one thing at a time: one that holds a task and asks for another has not heard the
    answer that gave it this one, and gets it again. Where there are others, what it has failed at
    comes after what it has not, and the last attempt is theirs.

    Args:
        unit: Where tasks live.
        worker: Who asks.
        kinds: What it can do.
        clock: Now, on the clock of leases.
        ttl: Seconds a lease lasts.
        longest: Seconds for which it may be renewed; None for ever.
        alone: Whether there is nobody else who could do what this worker cannot.
    """
    for held in unit.find(TaskRecord, state=TaskState.LEASED):
        if held.task.worker == worker:
            told = save(unit, held, held.task.answered_again(now=clock, ttl=ttl))
            if told.state == TaskState.LEASED:
                return told
    waiting = [
        record
        for record in unit.find(TaskRecord, state=TaskState.QUEUED)
        if record.kind in kinds and (alone or not record.task.better_left_by(worker))
    ]
    chosen = min(
        waiting, key=lambda record: not alone and worker in record.task.tried, default=None
    )
    if chosen is None:
        return None
    return save(unit, chosen, chosen.task.lease(worker, now=clock, ttl=ttl, longest=longest))


def renew_lease(unit: Unit, key: str, fence: int, *, clock: float, ttl: float) -> TaskRecord:
    """Extend a lease.

    Raises:
        MissingError: there is no such task.
        LeaseLostError: the task is no longer this lease's.
    """
    record = require(unit, TaskRecord, key, "lease")
    return save(unit, record, record.task.renew(fence, now=clock, ttl=ttl))


def give_back_lease(unit: Unit, key: str, fence: int) -> TaskRecord:
    """Queue a task again whose worker was told to stop; a lease that is over changes nothing.

    Raises:
        MissingError: there is no such task.
        LeaseLostError: the task was given to somebody else.
    """
    record = require(unit, TaskRecord, key, "lease")
    return save(unit, record, record.task.give_back(fence))


def finish_lease(unit: Unit, key: str, fence: int, outcome: Outcome, *, now: float) -> TaskRecord:
    """Take a task's outcome, and keep its scores for studies to come.

    Raises:
        MissingError: there is no such task.
        LeaseLostError: the task was given to somebody else, or cancelled.
        OutcomeConflictError: another outcome of this lease was taken before.
    """
    record = require(unit, TaskRecord, key, "lease")
    finished = save(unit, record, record.task.finish(fence, outcome))
    keep_scores(unit, finished, now=now)
    return finished


def take_back(
    unit: Unit, worker: str, *, code: Failure = Failure.CRASHED, log: str | None = None
) -> list[TaskRecord]:
    """Take back what a worker held that is known to be gone, without waiting out its lease.

    Args:
        unit: Where tasks live.
        worker: Who died.
        code: How.
        log: The last that it said.
    """
    return [
        save(unit, record, record.task.abandoned(f"{worker} died", code, log))
        for record in unit.find(TaskRecord, state=TaskState.LEASED)
        if record.task.worker == worker
    ]


def reap(unit: Unit, *, clock: float) -> list[TaskRecord]:
    """Take back every task whose lease ran out; return those."""
    leased = unit.find(TaskRecord, state=TaskState.LEASED)
    expired = [(record, record.task.expire(clock)) for record in leased]
    return [save(unit, record, task) for record, task in expired if task is not record.task]


def regrace(unit: Unit, *, clock: float, ttl: float, longest: float | None = None) -> None:
    """Give every lease a whole term from now.

    After a restart the clock of leases begins anew, and workers could not renew meanwhile.
    """
    for record in unit.find(TaskRecord, state=TaskState.LEASED):
        save(unit, record, record.task.regraced(now=clock, ttl=ttl, longest=longest))


def cancel_tasks(unit: Unit, study: str) -> None:
    """End all of a study's tasks that are not over."""
    for record in unit.find(TaskRecord, study=study):
        if not record.task.over:
            save(unit, record, record.task.cancel())


def save(unit: Unit, record: TaskRecord, task: Task) -> TaskRecord:
    """Store a task's next state, its indexed copy included."""
    return unit.update(replace(record, task=task, state=task.state))
