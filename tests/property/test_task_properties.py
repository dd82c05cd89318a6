"""A task under leases: done at least once, its outcome counted exactly once."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ckptmerge.domain.task import MAX_ATTEMPTS, Order, Outcome, Task, TaskKind, TaskState
from ckptmerge.errors import IllegalTransitionError, LeaseLostError, OutcomeConflictError

TTL = 60.0
OK, OTHER = (Outcome(status="ok", reason=name) for name in ("one", "other"))
BROKEN = Outcome(status="failed", reason="broken")


class Leases(RuleBasedStateMachine):
    """Workers that die, stall, repeat themselves and come late, against a plain account of it."""

    def __init__(self) -> None:
        super().__init__()
        self.task = Task(id="l", study="s", kind=TaskKind.EVALUATE, name="t", order=Order())
        self.now = 0.0
        self.highest = 0
        self.accepted: list[tuple[int, Outcome]] = []
        self.over: TaskState | None = None
        self.returned = 0
        """Leases that were given back while they were held."""

    @rule()
    def lease(self) -> None:
        if self.task.state is not TaskState.QUEUED:
            with pytest.raises(IllegalTransitionError):
                self.task.lease("w", now=self.now, ttl=TTL)
            return
        self.task = self.task.lease("w", now=self.now, ttl=TTL)
        assert self.task.fence == self.highest + 1
        self.highest = self.task.fence

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        held = self.task.expires
        before = self.task
        self.task = self.task.expire(self.now)
        if held is None or self.now < held:
            assert self.task is before
        else:
            given_up = before.fence - self.returned >= MAX_ATTEMPTS
            assert self.task.state is (TaskState.FAILED if given_up else TaskState.QUEUED)
            assert self.task.reason

    @rule(fence=st.integers(0, 5))
    def renew(self, fence: int) -> None:
        if self.task.state is TaskState.LEASED and fence == self.task.fence:
            self.task = self.task.renew(fence, now=self.now, ttl=TTL)
            assert self.task.expires == self.now + TTL
        else:
            with pytest.raises(LeaseLostError):
                self.task.renew(fence, now=self.now, ttl=TTL)

    @rule(fence=st.integers(0, 5))
    def give_back(self, fence: int) -> None:
        before = self.task
        if fence != before.fence:
            with pytest.raises(LeaseLostError):
                before.give_back(fence)
            return
        self.task = before.give_back(fence)
        assert self.task.give_back(fence) is self.task
        if before.state is not TaskState.LEASED:
            assert self.task is before
            return
        self.returned += 1
        assert self.task.state is TaskState.QUEUED, "however often it was given back before"
        assert (self.task.worker, self.task.expires) == (None, None)

    @rule(fence=st.integers(1, 5), outcome=st.sampled_from([OK, OTHER, BROKEN]))
    def finish(self, fence: int, outcome: Outcome) -> None:
        known = [given for number, given in self.accepted if number == fence]
        try:
            after = self.task.finish(fence, outcome)
        except LeaseLostError:
            lost = self.task.state in {TaskState.CANCELLED, TaskState.FAILED}
            assert fence != self.task.fence or lost
            return
        except OutcomeConflictError:
            assert known
            assert known[-1] != outcome
            return
        if known:
            assert known == [outcome]
            assert after is self.task
            return
        assert fence == self.task.fence
        self.accepted.append((fence, outcome))
        self.task = after

    @precondition(lambda self: not self.task.over)
    @rule()
    def cancel(self) -> None:
        self.task = self.task.cancel()

    @invariant()
    def at_most_one_outcome_counts(self) -> None:
        counted = [outcome for _, outcome in self.accepted if outcome.status != "failed"]
        assert len(counted) <= 1
        if self.task.state is TaskState.DONE:
            assert counted == [self.task.outcome]
        elif counted:
            pytest.fail(f"an accepted outcome was lost: the task is {self.task.state}")

    @invariant()
    def what_is_over_stays_so(self) -> None:
        if self.over is not None:
            assert self.task.state is self.over
        elif self.task.over:
            self.over = self.task.state

    @invariant()
    def no_task_is_tried_for_ever(self) -> None:
        assert self.task.attempts == self.task.fence - self.returned <= MAX_ATTEMPTS


@pytest.mark.parametrize("outcome", [OK, BROKEN])
def test_an_outcome_may_be_handed_in_again_but_not_changed(outcome: Outcome) -> None:
    task = Task(id="l", study="s", kind=TaskKind.EVALUATE, name="t", order=Order())
    done = task.lease("w", now=0.0, ttl=TTL).finish(1, outcome)
    assert done.finish(1, outcome) is done
    with pytest.raises(OutcomeConflictError, match="it stands"):
        done.finish(1, OTHER)


def test_a_task_given_back_more_often_than_it_may_fail_is_still_done() -> None:
    task = Task(id="l", study="s", kind=TaskKind.EVALUATE, name="t", order=Order())
    for fence in range(1, MAX_ATTEMPTS + 2):
        task = task.lease("w", now=0.0, ttl=TTL).give_back(fence)
    assert (task.state, task.attempts) == (TaskState.QUEUED, 0)
    last = task.fence + 1
    assert task.lease("w", now=0.0, ttl=TTL).finish(last, OK).state is TaskState.DONE


def test_a_worker_that_finishes_what_it_gave_back_is_heard_unless_another_has_it() -> None:
    task = Task(id="l", study="s", kind=TaskKind.EVALUATE, name="t", order=Order())
    free = task.lease("w", now=0.0, ttl=TTL).give_back(1)
    assert free.finish(1, OK).state is TaskState.DONE
    with pytest.raises(LeaseLostError):
        free.lease("v", now=0.0, ttl=TTL).finish(1, OK)


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
