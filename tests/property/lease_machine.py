"""Everything that can happen to the leases of a study, in any order, against a plain account of it.

What runs is real: a store, the verbs over it, and a conductor that moves the study on. Workers and
time are made up: workers stall, die, repeat themselves and come late; the service is stopped, or
killed, and comes back with its clock of leases begun anew; the time of day jumps.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import MAX_ATTEMPTS, Failure, Outcome, TaskKind, TaskState
from ckptmerge.errors import LeaseLostError, OutcomeConflictError
from ckptmerge.storage.records import EventRecord, TaskRecord
from ckptmerge.storage.store import Store, Unit
from ckptmerge.workflow.cancel import cancel_study, going_on
from ckptmerge.workflow.conduct import Conductor
from ckptmerge.workflow.desk import Desk
from ckptmerge.workflow.tasks import (
    finish_lease,
    give_back_lease,
    lease_task,
    reap,
    regrace,
    renew_lease,
    take_back,
)
from tests.unit.workflow.conducted import World, propose

TTL, LONGEST, HOUR = 60.0, 600.0, 3600.0
WORKERS = ("a", "b", "c")
CHECKPOINTS = 6
STEPS_AN_EXAMPLE = 100

Opener = Callable[[], Store]
"""Opens the same records again, as a service does that starts anew."""

Fresh = Callable[[], AbstractContextManager[Opener]]
"""Makes a place for records, with nothing in it."""


@dataclass(frozen=True)
class Claim:
    """What a worker believes to hold, rightly or not."""

    task: str
    fence: int
    worker: str


@dataclass
class Account:
    """What workers were told, and what must therefore be so."""

    claims: list[Claim] = field(default_factory=list)
    fences: dict[str, int] = field(default_factory=dict)
    """The highest fence that was given out, by task."""
    taken: dict[tuple[str, int], Outcome] = field(default_factory=dict)
    """Outcomes that were acknowledged, by task and fence."""
    counted: dict[str, Outcome] = field(default_factory=dict)
    """Those among them that say what the task came to, by task."""

    def claim(self, number: int) -> Claim:
        """Return one of the last claims."""
        return self.claims[-1 - number % min(len(self.claims), 8)]


class LeaseMachine(RuleBasedStateMachine):
    """One example: a service from its first checkpoints on."""

    fresh: ClassVar[Fresh]
    taken: ClassVar[int] = 0
    """Steps of all examples together."""

    def __init__(self) -> None:
        super().__init__()
        self._places = ExitStack()
        self._open = self._places.enter_context(type(self).fresh())
        self.clock, self.wall = 1000.0, 0.0
        self.world = World(store=self._open())
        self.account = Account()
        self.world.arrive(10)
        self.world.arrive(20)
        self.conduct()

    def teardown(self) -> None:
        self._places.close()

    # What is asked of the service.

    @rule(worker=st.sampled_from(WORKERS), alone=st.booleans())
    def ask_for_work(self, worker: str, alone: bool) -> None:
        held = [r for r in self.leased() if r.task.worker == worker]
        record = self.change(
            lambda unit: lease_task(
                unit, worker, list(TaskKind), clock=self.clock, ttl=TTL, longest=LONGEST,
                alone=alone,
            )
        )  # fmt: skip
        if record is None:
            assert not held or held[0].task.attempts >= MAX_ATTEMPTS or not alone
            return
        known = self.account.fences.get(record.id, 0)
        same = any((r.id, r.task.fence) == (record.id, record.task.fence) for r in held)
        assert record.task.fence == (known if same else known + 1)
        self.account.fences[record.id] = record.task.fence
        self.account.claims.append(Claim(record.id, record.task.fence, worker))

    @rule(worker=st.sampled_from(WORKERS), times=st.integers(1, 4))
    def work_well(self, worker: str, times: int) -> None:
        """As it mostly goes: else no study would ever come to its end here."""
        for _ in range(times):
            before = len(self.account.claims)
            self.ask_for_work(worker, alone=True)
            if len(self.account.claims) == before:
                return
            self.report(0, "ok")
            self.conduct()

    @rule(worker=st.sampled_from(WORKERS), what=st.sampled_from(("failed", "dies")))
    def work_badly(self, worker: str, what: str) -> None:
        """Until there is no work, or three attempts at one task came to nothing."""
        for _ in range(MAX_ATTEMPTS):
            self.ask_for_work(worker, alone=True)
            if what == "dies":
                self.worker_dies(worker)
            elif self.account.claims:
                self.report(0, "failed")

    @precondition(lambda self: self.account.claims)
    @rule(number=st.integers(0, 7))
    def beat(self, number: int) -> None:
        claim = self.account.claim(number)
        before = self.record(claim.task)
        theirs = before.state == TaskState.LEASED and before.task.fence == claim.fence
        try:
            after = self.change(
                lambda unit: renew_lease(unit, claim.task, claim.fence, clock=self.clock, ttl=TTL)
            )
        except LeaseLostError:
            assert not theirs
        else:
            assert theirs
            assert after.task.expires == min(self.clock + TTL, before.task.deadline)

    @precondition(lambda self: self.account.claims)
    @rule(
        number=st.integers(0, 7), what=st.sampled_from(("ok", "ok", "ok", "infeasible", "failed"))
    )
    def report(self, number: int, what: str) -> None:
        """Hand in an outcome; no two leases' are alike, and none has two of a kind."""
        claim = self.account.claim(number)
        outcome = Outcome(status="failed", reason="broken")
        if what == "ok":
            outcome = self.world.work(self.record(claim.task).task)
        if what == "infeasible":
            outcome = Outcome(status="infeasible", reason="not finite")
        self.hand_in(claim, replace(outcome, seconds={"load": float(claim.fence)}))

    @precondition(lambda self: self.account.taken)
    @rule(number=st.integers(0, 7), changed=st.booleans())
    def repeat_a_report(self, number: int, changed: bool) -> None:
        """Hand in once more what was acknowledged, as it was or as it was not."""
        keys = list(self.account.taken)
        task, fence = keys[-1 - number % len(keys)]
        outcome = self.account.taken[task, fence]
        self.hand_in(
            Claim(task, fence, "any"), replace(outcome, reason="other") if changed else outcome
        )

    def hand_in(self, claim: Claim, outcome: Outcome) -> None:
        """Hand an outcome in, and hold the answer against what was acknowledged before."""
        before = self.record(claim.task)
        known = self.account.taken.get((claim.task, claim.fence))
        try:
            self.change(
                lambda unit: finish_lease(unit, claim.task, claim.fence, outcome, now=self.wall)
            )
        except LeaseLostError:
            over = before.state in {TaskState.CANCELLED, TaskState.FAILED}
            assert claim.fence != before.task.fence or over
        except OutcomeConflictError:
            assert known is not None
            assert known != outcome
        else:
            assert known is None or known == outcome, "another outcome was acknowledged before"
            self.account.taken[claim.task, claim.fence] = outcome
            if outcome.status != "failed":
                counted = self.account.counted.setdefault(claim.task, outcome)
                assert counted == outcome, "two outcomes of one task were acknowledged"

    @precondition(lambda self: self.account.claims)
    @rule(number=st.integers(0, 7))
    def give_back(self, number: int) -> None:
        claim = self.account.claim(number)
        fence = self.record(claim.task).task.fence
        try:
            self.change(lambda unit: give_back_lease(unit, claim.task, claim.fence))
        except LeaseLostError:
            assert claim.fence != fence
        else:
            assert claim.fence == fence

    @rule(worker=st.sampled_from(WORKERS))
    def worker_dies(self, worker: str) -> None:
        self.change(lambda unit: take_back(unit, worker, code=Failure.KILLED))
        assert all(r.task.worker != worker for r in self.leased())

    # What happens to the service.

    @rule(seconds=st.sampled_from((1.0, 30.0, TTL, 2 * LONGEST)))
    def time_passes(self, seconds: float) -> None:
        self.clock += seconds
        self.wall += seconds

    @rule(seconds=st.sampled_from((HOUR, -HOUR)))
    def time_of_day_jumps(self, seconds: float) -> None:
        """Leases neither end by it nor live longer."""
        held = [r for r in self.leased() if self.clock < r.task.expires]
        self.jump(seconds)
        self.look_after_leases()
        assert self.leased() == held

    def jump(self, seconds: float) -> None:
        self.wall += seconds

    @rule()
    def look_after_leases(self) -> None:
        due = {r.id for r in self.leased() if self.clock >= r.task.expires}
        assert {r.id for r in self.change(lambda unit: reap(unit, clock=self.clock))} == due

    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        before = [_without_terms(record) for record in self.tasks()]
        studies = self.world.studies()
        if not killed:
            self.world.store.close()
        self.world.store = self._open()
        self.clock = 5.0  # as if the machine had been started anew, too
        self.change(lambda unit: regrace(unit, clock=self.clock, ttl=TTL, longest=LONGEST))
        assert [_without_terms(record) for record in self.tasks()] == before
        assert self.world.studies() == studies
        assert all(r.task.expires == self.clock + TTL for r in self.leased())

    @rule()
    def conduct(self) -> None:
        """Let the study ask for all that it can ask for."""
        desk = Desk(self.world.store, self.world.blobs, lambda: self.wall, self.world.new_id)
        conductor = Conductor(desk, propose, lambda: 2)
        for _ in range(200):
            if not conductor.advance(self.world.studies()[-1].id):
                return
        raise AssertionError("the study moves for ever, and nobody works for it")

    @precondition(lambda self: len(self.account.taken) > 8)
    @rule(really=st.sampled_from((False, False, False, True)))
    def cancel(self, really: bool) -> None:
        if not really:
            return

        def end(unit: Unit) -> None:
            for study in going_on(unit, "run"):
                cancel_study(unit, study, reason="no more", now=self.wall, new_id=self.world.new_id)

        self.change(end)

    @precondition(lambda self: len(self.world.studies()) < CHECKPOINTS and self.is_idle())
    @rule()
    def checkpoints_come(self) -> None:
        newest = 20 + 20 * len(self.world.studies())
        self.world.arrive(newest - 10)
        self.world.arrive(newest)
        self.conduct()

    # What must be so at any time.

    @invariant()
    def everything_holds(self) -> None:
        type(self).taken += 1
        with self.world.store.read() as snapshot:
            tasks, events = snapshot.find(TaskRecord), snapshot.find(EventRecord)
        self.an_acknowledged_outcome_counts_and_no_other(tasks)
        self.no_trial_is_observed_twice(tasks, events)
        self.a_leased_task_is_one_workers_and_not_for_ever(tasks)
        for record in tasks:
            assert record.task.fence == self.account.fences.get(record.id, 0)
            assert record.state == record.task.state
            assert record.task.attempts <= MAX_ATTEMPTS, "it is tried for ever"
            if record.state == TaskState.FAILED:
                assert len(record.task.tried) == MAX_ATTEMPTS, "it was given up early"
                assert record.task.code is not None

    def an_acknowledged_outcome_counts_and_no_other(self, tasks: list[TaskRecord]) -> None:
        records = {record.id: record for record in tasks}
        for task, outcome in self.account.counted.items():
            assert records[task].state == TaskState.DONE, "an acknowledged outcome was lost"
            assert records[task].task.outcome == outcome, "another outcome counts"
        for record in records.values():
            if record.state == TaskState.DONE and not record.reused:
                assert record.id in self.account.counted, "an outcome counts that nobody handed in"

    def no_trial_is_observed_twice(
        self, tasks: list[TaskRecord], events: list[EventRecord]
    ) -> None:
        told = [
            (event.data["study"], event.data["trial"])
            for event in events
            if event.kind == "trial-observed"
        ]
        assert len(set(told)) == len(told)
        trials = [(r.study, r.task.trial) for r in tasks if r.task.trial is not None]
        assert len(set(trials)) == len(trials)
        for record in tasks:
            if record.observation is not None and not record.reused:
                outcome = self.account.counted[record.id]
                assert (outcome.status, outcome.scores) == ("ok", record.observation.scores)

    def a_leased_task_is_one_workers_and_not_for_ever(self, tasks: list[TaskRecord]) -> None:
        leased = [record for record in tasks if record.state == TaskState.LEASED]
        holders = [record.task.worker for record in leased]
        assert len(set(holders)) == len(holders), "a worker holds two tasks"
        for record in leased:
            task = record.task
            assert Claim(record.id, task.fence, task.worker) in self.account.claims
            assert task.expires <= min(self.clock + TTL, task.deadline)
            assert task.deadline <= self.clock + LONGEST

    # How the machine looks at it.

    def change(self, verb):
        with self.world.store.write() as unit:
            return verb(unit)

    def tasks(self) -> list[TaskRecord]:
        return self.world.all(TaskRecord)

    def leased(self) -> list[TaskRecord]:
        with self.world.store.read() as snapshot:
            return snapshot.find(TaskRecord, state=TaskState.LEASED)

    def record(self, task: str) -> TaskRecord:
        with self.world.store.read() as snapshot:
            found = snapshot.get(TaskRecord, task)
        assert found is not None, "a task that was leased is gone"
        return found

    def is_idle(self) -> bool:
        going = {StudyState.SEARCHING, StudyState.FROZEN}
        return all(study.state not in going for study in self.world.studies())


def _without_terms(record: TaskRecord) -> TaskRecord:
    """Leave out when a lease runs out, which a restart changes."""
    task = record.task
    expires = None if task.expires is None else 0.0
    return replace(record, task=replace(task, expires=expires, deadline=None))


def run_lease_machine(
    fresh: Fresh, *, steps: int, first_seed: int = 0, kind: type[LeaseMachine] = LeaseMachine
) -> int:
    """Take so many steps at least, in examples of up to a hundred; return how many were taken.

    Raises:
        AssertionError: something was so that must not be; the output says after which steps.
    """

    class Machine(kind):
        """One run's own count."""

    Machine.fresh = staticmethod(fresh)
    number = first_seed
    while Machine.taken < steps:
        run_state_machine_as_test(
            seed(number)(Machine),
            settings=settings(
                max_examples=max((steps - Machine.taken) // STEPS_AN_EXAMPLE, 1),
                stateful_step_count=STEPS_AN_EXAMPLE,
                deadline=None,
                database=None,
                derandomize=False,
                phases=(Phase.generate,),
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
        number += 1
    return Machine.taken
