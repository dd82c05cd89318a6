"""Task: a piece of a study that a worker does under a lease.

A lease ends by its outcome or by running out, and then the task is anybody's again. Every lease of
a task carries a higher *fence*; whoever comes back with an old one has lost the task. So a task is
done at least once, and its outcome counts exactly once, however often workers die, stall or repeat
themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import IllegalTransitionError, LeaseLostError, OutcomeConflictError

MAX_ATTEMPTS = 3
"""Attempts after which a task that never came to an end is given up."""

MAX_ANSWERS = 8
"""Times that a worker is told of one lease: more than a client repeats a request whose answers are
lost. One that asks still more often starts anew each time, and the task may be why."""


class TaskKind(StrEnum):
    """What is to be done."""

    EVALUATE = "evaluate"
    """Form a candidate in memory and score it."""
    MATERIALISE = "materialise"
    """Write a merge's bytes, visible to nobody yet."""
    CERTIFY = "certify"
    """Load bytes as their users would, and score them."""


class TaskState(StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    """It has an outcome, be it that a loss was not finite."""
    FAILED = "failed"
    """No attempt came to an end; nobody tries again."""
    CANCELLED = "cancelled"


class Failure(StrEnum):
    """Why a lease came to nothing."""

    ERROR = "error"
    """The worker met an error, and says which."""
    OOM = "oom"
    """The machine's memory did not suffice."""
    CUDA_OOM = "cuda-oom"
    """The device's memory did not suffice."""
    KILLED = "killed"
    """The worker was killed (signal 9, exit code 137): by hand, or by a system out of memory."""
    CRASHED = "crashed"
    """The worker's process ended otherwise."""
    LOST = "lost"
    """Nothing was heard of the worker until the lease ran out."""
    TIMEOUT = "timeout"
    """The worker was still at it after the longest time that a task may take."""
    UNUSABLE = "unusable"
    """What the worker handed in is not what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What exactly is to be done; the same order gives the same outcome."""

    weights: MergeWeights | None = None
    """Of the candidate, or of the merge to write."""
    split: Split | None = None
    """Documents to score on."""
    subject: str | None = None
    """Id of the checkpoint or artifact whose files are scored."""
    repeat: bool = False
    """Score twice, the second time with the documents batched in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a lease."""

    status: Literal["ok", "infeasible", "failed"]
    reason: str | None = None
    code: Failure | None = None
    """What kind of failure the reason describes."""
    log: str | None = None
    """The last that the worker said before it failed."""
    scores: Digest | None = None
    """Blob of per-document scores."""
    repeated: Digest | None = None
    files: tuple[FileEntry, ...] = ()
    """Of a merge that was written."""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    bytes_written: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work and who does it.

    Raises:
        IllegalTransitionError: state, worker and outcome contradict each other.
    """

    id: str
    study: str
    kind: TaskKind
    name: str
    """What it is for, within its study; no two tasks of a study share one."""
    order: Order
    trial: int | None = None
    """Number of the trial that the task measures."""
    state: TaskState = TaskState.QUEUED
    fence: int = 0
    """Number of the last lease; 0 before the first."""
    given_back: int = 0
    """Leases that their worker gave back: no fault of the task, so they count as no attempts."""
    worker: str | None = None
    """Who holds it now."""
    expires: float | None = None
    """When the lease runs out, on the clock that also says ``now``."""
    deadline: float | None = None
    """When the lease ends however often it is renewed, on the same clock; None: never."""
    heard: bool = False
    """Whether the worker has shown, by a heartbeat, that it knows of its lease."""
    answers: int = 0
    """Times that the worker was told of its lease."""
    tried: tuple[str, ...] = ()
    """Workers whose leases came to nothing, one a lease, in order."""
    outcome: Outcome | None = None
    """The last lease's, once it has come in."""
    reason: str | None = None
    """Why the last lease came to nothing."""
    code: Failure | None = None
    """The same, in one word for programs."""
    log: str | None = None
    """The last that was heard of a worker whose lease came to nothing."""

    def __post_init__(self) -> None:
        held = self.worker is not None and self.expires is not None
        if held != (self.state is TaskState.LEASED):
            raise IllegalTransitionError(f"task {self.id}: a worker goes with state leased alone")
        if self.state is TaskState.DONE and self.outcome is None:
            raise IllegalTransitionError(f"task {self.id} is done without an outcome")

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in {TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED}

    @property
    def attempts(self) -> int:
        """Leases that came, or may yet come, to something."""
        return self.fence - self.given_back

    def better_left_by(self, worker: str) -> bool:
        """Whether the last attempt should be another's: this worker alone has failed so far."""
        return self.attempts == MAX_ATTEMPTS - 1 and set(self.tried) == {worker}

    def lease(self, worker: str, *, now: float, ttl: float, longest: float | None = None) -> "Task":
        """Give the task to a worker for ``ttl`` seconds, to be renewed for ``longest`` at most.

        Raises:
            IllegalTransitionError: it is not waiting for one.
        """
        if self.state is not TaskState.QUEUED:
            raise IllegalTransitionError(f"task {self.id} is {self.state} and cannot be leased")
        leased = replace(
            self, state=TaskState.LEASED, fence=self.fence + 1, worker=worker, expires=now + ttl,
            heard=False, answers=1, outcome=None,
        )  # fmt: skip
        return leased.regraced(now=now, ttl=ttl, longest=longest)

    def regraced(self, *, now: float, ttl: float, longest: float | None = None) -> "Task":
        """Let the terms of a lease begin now: with the lease, and with the clock's restart."""
        return replace(self, expires=now + ttl, deadline=None if longest is None else now + longest)

    def answered_again(self, *, now: float, ttl: float) -> "Task":
        """Tell the worker of its lease once more, as it asks for work while it holds some.

        Its answer was lost on the way. But one that has sent a heartbeat had its answer, and one
        that asks too often cannot be getting as far as that: both have started anew under an old
        name, and the attempt is over.
        """
        if self.heard or self.answers >= MAX_ANSWERS:
            return self.abandoned(f"{self.worker} started anew", Failure.CRASHED)
        told = self.renew(self.fence, now=now, ttl=ttl)
        return replace(told, heard=False, answers=self.answers + 1)

    def renew(self, fence: int, *, now: float, ttl: float) -> "Task":
        """Extend a lease to ``ttl`` seconds from now.

        Raises:
            LeaseLostError: the task is no longer this lease's.
        """
        if self.state is not TaskState.LEASED or fence != self.fence:
            raise LeaseLostError(self._lost(fence))
        expires = now + ttl if self.deadline is None else min(now + ttl, self.deadline)
        return replace(self, expires=expires, heard=True)

    def expire(self, now: float) -> "Task":
        """Take the task back from a worker whose lease has run out; else return it as it is."""
        if self.state is not TaskState.LEASED or self.expires is None or now < self.expires:
            return self
        if self.deadline is not None and now >= self.deadline:
            return self.abandoned(
                f"{self.worker} was still at it after the longest time that a task may take",
                Failure.TIMEOUT,
            )
        reason = f"{self.worker} was not heard of until its lease ran out"
        return self.abandoned(reason, Failure.LOST)

    def abandoned(self, reason: str, code: Failure, log: str | None = None) -> "Task":
        """Take a leased task back from a worker that is gone; the attempt counts.

        Raises:
            IllegalTransitionError: nobody holds it.
        """
        if self.state is not TaskState.LEASED:
            raise IllegalTransitionError(f"task {self.id} is {self.state}, and nobody's to lose")
        return self._again(reason, code, log)

    def give_back(self, fence: int) -> "Task":
        """Take the task back from a worker that was told to stop; the attempt does not count.

        A lease that is over, however it ended, has nothing to give back: then nothing changes.

        Raises:
            LeaseLostError: the task was given to somebody else.
        """
        if fence != self.fence:
            raise LeaseLostError(self._lost(fence))
        if self.state is not TaskState.LEASED:
            return self
        return replace(
            self, state=TaskState.QUEUED, worker=None, expires=None,
            given_back=self.given_back + 1, reason=f"{self.worker} was told to stop",
        )  # fmt: skip

    def finish(self, fence: int, outcome: Outcome) -> "Task":
        """Take an outcome; the same one again changes nothing.

        One that comes after the lease ran out is taken as long as nobody else holds the task.

        Raises:
            LeaseLostError: the task was given to somebody else, or cancelled.
            OutcomeConflictError: this lease's outcome came before, and was another one.
        """
        if fence != self.fence or self.state is TaskState.CANCELLED:
            raise LeaseLostError(self._lost(fence))
        if self.outcome is not None:
            if outcome == self.outcome:
                return self
            raise OutcomeConflictError(
                f"lease {fence} of task {self.id} came to another outcome before; it stands"
            )
        if self.state is TaskState.FAILED:
            raise LeaseLostError(self._lost(fence))
        if outcome.status == "failed":
            again = self._again(
                outcome.reason or "no reason given", outcome.code or Failure.ERROR, outcome.log
            )
            return replace(again, outcome=outcome)
        return replace(self, state=TaskState.DONE, worker=None, expires=None, outcome=outcome)

    def cancel(self) -> "Task":
        """End the task, whoever holds it; one that is over stays as it is."""
        if self.over:
            return self
        return replace(self, state=TaskState.CANCELLED, worker=None, expires=None)

    def _again(self, reason: str, code: Failure, log: str | None) -> "Task":
        given_up = self.attempts >= MAX_ATTEMPTS
        return replace(
            self,
            state=TaskState.FAILED if given_up else TaskState.QUEUED,
            worker=None,
            expires=None,
            # One that reports after its lease ran out has been counted.
            tried=self.tried if self.worker is None else (*self.tried, self.worker),
            reason=reason,
            code=code,
            log=log or self.log,
        )

    def _lost(self, fence: int) -> str:
        return (
            f"lease {fence} of task {self.id} is over: the task is {self.state} under lease "
            f"{self.fence}; stop working on it and ask for another"
        )
