"""A worker that was taken for dead comes back with its outcome: too late, and it counts nowhere."""

from dataclasses import replace

import pytest

from ckptmerge.domain.task import Outcome, Task, TaskKind, TaskState
from ckptmerge.errors import LeaseLostError
from ckptmerge.storage.blobs import put
from ckptmerge.storage.records import TaskRecord
from ckptmerge.workflow.tasks import reap
from tests.unit.workflow.conducted import World, scores

WRONG = 9.0
"""Bits per byte that the late worker claims; nobody else measures that."""


@pytest.fixture
def world() -> World:
    """A study that waits for its first task to be done."""
    world = World()
    world.arrive(10)
    world.arrive(20)
    while world.conductor.advance(world.studies()[-1].id):
        pass
    return world


def fences_heard(world: World) -> list[int]:
    """Hand a task in twice, by who did it and by who lost it; return whose outcomes were taken."""
    lost = world.lease("killed")
    assert lost is not None
    assert lost.kind == TaskKind.EVALUATE
    world.clock += 61
    with world.store.write() as unit:
        reap(unit, clock=world.clock)
    again = world.lease("another")
    assert again is not None
    assert again.id == lost.id
    claimed = put(world.blobs, scores(WRONG, lost.task.order.split).to_bytes())
    late = Outcome(status="ok", scores=claimed, repeated=claimed)
    heard = []
    for record, outcome in ((again, world.work(again.task)), (lost, late)):
        try:
            world.finish(record, outcome)
        except LeaseLostError:
            continue
        heard.append(record.task.fence)
    return heard


def test_an_outcome_that_comes_after_anothers_is_refused_and_counts_nowhere(world: World) -> None:
    assert fences_heard(world) == [2]
    disturbed, calm = world.conclude(), World()
    calm.arrive(10)
    calm.arrive(20)
    undisturbed = calm.conclude()
    assert disturbed.verdict is not None
    assert undisturbed.verdict is not None
    assert disturbed.verdict.passes == undisturbed.verdict.passes
    assert disturbed.verdict.weights == undisturbed.verdict.weights
    values = [r.observation.value for r in world.all(TaskRecord) if r.observation is not None]
    assert max(values) < WRONG / 2


def test_without_a_fence_it_would_be_counted_beside_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is the fence that the test above is about."""

    def finish(task: Task, _fence: int, outcome: Outcome) -> Task:
        return replace(task, state=TaskState.DONE, worker=None, expires=None, outcome=outcome)

    monkeypatch.setattr(Task, "finish", finish)
    assert fences_heard(world) == [2, 1]
    [told] = [r for r in world.all(TaskRecord) if r.state == TaskState.DONE]
    world.conductor.advance(told.study)
    [seen] = [r.observation for r in world.all(TaskRecord) if r.observation is not None]
    assert seen.value > WRONG / 2, "and what it claims would be believed"
