"""Candidates that nobody can measure: tried on more than one worker, given up, and explained."""

import pytest

from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import MAX_ANSWERS, MAX_ATTEMPTS, Failure, Outcome, TaskKind, TaskState
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import LeaseLostError
from ckptmerge.storage.records import EventRecord, TaskRecord
from ckptmerge.workflow.tasks import lease_task, reap, regrace, renew_lease, take_back
from tests.unit.workflow.conducted import World

POISON = MergeWeights.of(0.5, 0.5)
TTL, LONGEST = 60.0, 600.0


@pytest.fixture
def world() -> World:
    world = World(width=2)
    for step in (10, 20):
        world.arrive(step)
    while world.conductor.advance(world.studies()[-1].id):
        pass
    return world


def ask(world: World, worker: str, *, alone: bool = False) -> TaskRecord | None:
    with world.store.write() as unit:
        return lease_task(
            unit, worker, list(TaskKind), clock=world.clock, ttl=TTL, longest=LONGEST, alone=alone
        )


def fail(world: World, record: TaskRecord) -> None:
    outcome = Outcome(status="failed", reason="no memory", code=Failure.CUDA_OOM, log="on cuda:0")
    world.finish(record, outcome)


def poison(world: World) -> TaskRecord:
    [found] = [r for r in world.all(TaskRecord) if r.task.order.weights == POISON]
    return found


def test_the_last_attempt_is_left_to_another_worker_where_there_is_one(world: World) -> None:
    others = 0
    while len(poison(world).task.tried) < MAX_ATTEMPTS - 1:
        record = ask(world, "a")
        assert record is not None
        if record.id == poison(world).id:
            fail(world, record)
        else:
            others += 1
            world.finish(record, world.work(record.task))
    assert others == 2, "what it has not failed at comes first"
    assert ask(world, "a") is None
    assert ask(world, "a", alone=True) is not None
    with world.store.write() as unit:
        take_back(unit, "a")
    assert set(poison(world).task.tried) == {"a"}


def test_another_worker_has_the_last_attempt(world: World) -> None:
    for worker in ("a", "a", "b"):
        record = ask(world, worker, alone=worker == "a")
        assert record is not None
        fail(world, record)
    [failed] = [r for r in world.all(TaskRecord) if r.state == TaskState.FAILED]
    assert failed.task.tried == ("a", "a", "b")


def test_a_poisonous_candidate_fails_and_the_study_comes_to_its_end(world: World) -> None:
    for attempt in range(MAX_ATTEMPTS):
        worker = f"w{attempt}"
        while (record := ask(world, worker)) is not None and record.id != poison(world).id:
            world.finish(record, world.work(record.task))
        with world.store.write() as unit:
            take_back(unit, worker, code=Failure.KILLED, log="its last words")
    study = world.conclude()
    assert study.state is StudyState.DECIDED
    assert study.verdict is not None
    assert study.verdict.best is not None, "the others were measured"
    task = poison(world).task
    assert (task.state, task.code, task.log) == (TaskState.FAILED, "killed", "its last words")
    [event] = [e for e in world.all(EventRecord) if e.kind == "task-failed"]
    assert event.data["trial"] == task.trial
    assert event.data["workers"] == ["w0", "w1", "w2"]
    assert (event.data["code"], event.data["log"]) == ("killed", "its last words")


def test_a_worker_that_beats_for_ever_loses_its_task(world: World) -> None:
    record = ask(world, "busy")
    assert record is not None
    while world.clock < LONGEST:
        world.clock += TTL / 3
        with world.store.write() as unit:
            assert reap(unit, clock=world.clock) == [] or world.clock >= LONGEST
            if world.clock < LONGEST:
                beat = renew_lease(unit, record.id, 1, clock=world.clock, ttl=TTL)
                assert beat.task.expires is not None
                assert beat.task.expires <= LONGEST
    [after] = [r for r in world.all(TaskRecord) if r.id == record.id]
    assert (after.state, after.task.code) == (TaskState.QUEUED, Failure.TIMEOUT)
    with world.store.write() as unit, pytest.raises(LeaseLostError):
        renew_lease(unit, record.id, 1, clock=world.clock, ttl=TTL)


def test_a_restart_of_the_clock_gives_a_task_its_longest_time_anew(world: World) -> None:
    world.clock = 1e6
    record = ask(world, "w")
    assert record is not None
    with world.store.write() as unit:
        regrace(unit, clock=1.0, ttl=TTL, longest=LONGEST)
    [after] = [r for r in world.all(TaskRecord) if r.id == record.id]
    assert (after.task.expires, after.task.deadline) == (1.0 + TTL, 1.0 + LONGEST)


def test_a_worker_that_asks_again_after_a_heartbeat_has_started_anew(world: World) -> None:
    """It had heard of its lease; under a name that stays the same a crash shows in nothing else."""
    record = ask(world, "same")
    assert record is not None
    again = ask(world, "same")
    assert again is not None
    assert (again.id, again.task.fence) == (record.id, 1), "its answer was lost"
    with world.store.write() as unit:
        renew_lease(unit, record.id, 1, clock=0.0, ttl=TTL)
    ask(world, "same")
    [after] = [r for r in world.all(TaskRecord) if r.id == record.id]
    assert (after.task.tried, after.task.code) == (("same",), Failure.CRASHED)


def test_a_task_that_kills_a_worker_of_one_name_is_given_up_in_the_end(world: World) -> None:
    """As in a container whose worker is always called the same, and dies before its heartbeat."""
    first = ask(world, "same", alone=True)
    assert first is not None
    asked = 1
    while (record := ask(world, "same", alone=True)) is not None and record.id == first.id:
        asked += 1
    assert asked == MAX_ATTEMPTS * MAX_ANSWERS
    [after] = [r for r in world.all(TaskRecord) if r.id == first.id]
    assert after.state == TaskState.FAILED
