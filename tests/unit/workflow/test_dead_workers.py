"""A worker that is known to be dead: what it held is anybody's at once, and the attempt counts."""

import pytest

from ckptmerge.domain.task import MAX_ATTEMPTS, Failure, TaskState
from ckptmerge.errors import IllegalTransitionError
from ckptmerge.storage.records import TaskRecord
from ckptmerge.workflow.tasks import take_back
from tests.unit.workflow.conducted import World


@pytest.fixture
def world() -> World:
    world = World(width=2)
    for step in (10, 20):
        world.arrive(step)
    while world.conductor.advance(world.studies()[-1].id):
        pass
    return world


def die(world: World, worker: str) -> None:
    with world.store.write() as unit:
        take_back(unit, worker)


def test_another_worker_has_the_task_without_waiting_for_the_lease_to_run_out(world) -> None:
    first = world.lease("dead")
    die(world, "dead")
    again = world.lease("alive")
    assert (again.id, again.task.fence) == (first.id, first.task.fence + 1)
    assert "dead died" in (again.task.reason or "")


def test_what_others_hold_is_left_to_them(world) -> None:
    world.lease("dead")
    held = world.lease("alive")
    die(world, "dead")
    assert next(r for r in world.all(TaskRecord) if r.id == held.id).task.worker == "alive"


def test_a_task_that_kills_every_worker_is_given_up(world) -> None:
    poison = world.lease("w0")
    die(world, "w0")
    for attempt in range(1, MAX_ATTEMPTS):
        assert world.lease(f"w{attempt}").id == poison.id
        die(world, f"w{attempt}")
    after = next(r for r in world.all(TaskRecord) if r.id == poison.id)
    assert after.state == TaskState.FAILED
    assert f"w{MAX_ATTEMPTS - 1} died" in (after.task.reason or "")


def test_a_task_that_nobody_holds_cannot_be_lost(world) -> None:
    queued = next(r for r in world.all(TaskRecord) if r.state == TaskState.QUEUED)
    with pytest.raises(IllegalTransitionError, match="queued"):
        queued.task.abandoned("nobody", Failure.LOST)
