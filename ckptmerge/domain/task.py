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
    outcome: Outcome | None = None
    """The last lease's, once it has come in."""
    reason: str | None = None
    """Why the last lease came to nothing."""

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

    def lease(self, worker: str, *, now: float, ttl: float) -> "Task":
        """Give the task to a worker for ``ttl`` seconds.

        Raises:
            IllegalTransitionError: it is not waiting for one.
        """
        if self.state is not TaskState.QUEUED:
            raise IllegalTransitionError(f"task {self.id} is {self.state} and cannot be leased")
        return replace(
            self, state=TaskState.LEASED, fence=self.fence + 1, worker=worker, expires=now + ttl,
            outcome=None,
        )  # fmt: skip

    def renew(self, fence: int, *, now: float, ttl: float) -> "Task":
        """Extend a lease to ``ttl`` seconds from now.

        Raises:
            LeaseLostError: the task is no longer this lease's.
        """
        if self.state is not TaskState.LEASED or fence != self.fence:
            raise LeaseLostError(self._lost(fence))
        return replace(self, expires=now + ttl)

    def expire(self, now: float) -> "Task":
        """Take the task back from a worker whose lease has run out; else return it as it is."""
        if self.state is not TaskState.LEASED or self.expires is None or now < self.expires:
            return self
        return self.abandoned(f"{self.worker} was not heard of until its lease ran out")

    def abandoned(self, reason: str) -> "Task":
        """Take a leased task back from a worker that is gone; the attempt counts.

        Raises:
            IllegalTransitionError: nobody holds it.
        """
        if self.state is not TaskState.LEASED:
            raise IllegalTransitionError(f"task {self.id} is {self.state}, and nobody's to lose")
        return self._again(reason)

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
            return replace(self._again(outcome.reason or "no reason given"), outcome=outcome)
        return replace(self, state=TaskState.DONE, worker=None, expires=None, outcome=outcome)

    def cancel(self) -> "Task":
        """End the task, whoever holds it; one that is over stays as it is."""
        if self.over:
            return self
        return replace(self, state=TaskState.CANCELLED, worker=None, expires=None)

    def _again(self, reason: str) -> "Task":
        given_up = self.attempts >= MAX_ATTEMPTS
        state = TaskState.FAILED if given_up else TaskState.QUEUED
        return replace(self, state=state, worker=None, expires=None, reason=reason)

    def _lost(self, fence: int) -> str:
        return (
            f"lease {fence} of task {self.id} is over: the task is {self.state} under lease "
            f"{self.fence}; stop working on it and ask for another"
        )
