"""A checkpoint that takes another's place at its step, and what becomes of the other."""

import pytest

from ckptmerge.domain.retention import Retention
from ckptmerge.errors import InvalidInputError, MissingError, StepExistsError
from ckptmerge.storage.records import CheckpointRecord, EventRecord, RunRecord
from ckptmerge.wire.studies import NewStudy
from ckptmerge.workflow.best import best_of
from ckptmerge.workflow.open_by_hand import open_by_hand
from ckptmerge.workflow.retain import plan_retention
from ckptmerge.workflow.stored import at_step
from tests.unit.workflow.conducted import World


@pytest.fixture
def world() -> World:
    made = World()
    made.arrive(10)
    return made


def at(world: World, step: int) -> CheckpointRecord:
    with world.store.read() as snapshot:
        return at_step(snapshot, "run", step)


def test_other_bytes_at_a_step_are_refused_and_both_ways_on_are_named(world) -> None:
    with pytest.raises(StepExistsError) as refused:
        world.arrive(10, value=11)
    assert "?attempt=next" in str(refused.value)
    assert "?supersede=true" in str(refused.value)
    assert len(world.all(CheckpointRecord)) == 1


def test_what_supersedes_stands_at_the_step_in_the_same_attempt(world) -> None:
    before = at(world, 10)
    admission = world.arrive(10, value=11, supersede=True)
    assert admission.new
    assert at(world, 10) == admission.record
    assert admission.record.attempt == before.attempt
    old = next(c for c in world.all(CheckpointRecord) if c.id == before.id)
    assert old.superseded_by == admission.record.id
    assert old.manifest == before.manifest, "what it was is still on record"
    event = next(e for e in world.all(EventRecord) if e.kind == "checkpoint-superseded")
    assert event.data == {"checkpoint": before.id, "by": admission.record.id, "step": 10}


def test_superseding_where_nothing_stands_is_registering(world) -> None:
    assert world.arrive(20, supersede=True).new
    assert not [e for e in world.all(EventRecord) if e.kind == "checkpoint-superseded"]


def test_the_same_bytes_supersede_nothing(world) -> None:
    assert not world.arrive(10, supersede=True).new
    assert len(world.all(CheckpointRecord)) == 1


def test_the_superseded_bytes_sent_again_are_other_bytes_at_the_step(world) -> None:
    world.arrive(10, value=11, supersede=True)
    with pytest.raises(StepExistsError):
        world.arrive(10)
    back = world.arrive(10, supersede=True)
    assert back.new
    assert at(world, 10).id == back.record.id


def test_rolled_back_and_superseding_contradict_each_other(world) -> None:
    with pytest.raises(InvalidInputError, match="not both"):
        world.arrive(10, value=11, supersede=True, next_attempt=True)
    assert len(world.all(CheckpointRecord)) == 1


def test_a_study_that_goes_on_keeps_the_checkpoint_it_was_opened_over(world) -> None:
    world.arrive(20)
    study = world.studies()[-1]
    before = at(world, 20)
    world.arrive(20, value=21, supersede=True)
    assert study.checkpoints[-1] == before.id
    ended = world.conclude()
    assert ended.id == study.id
    assert ended.checkpoints == study.checkpoints
    assert ended.verdict is not None


def test_windows_take_what_stands_and_count_a_step_once(world) -> None:
    world.arrive(20)
    world.conclude()
    better = world.arrive(20, value=21, supersede=True).record
    assert len(world.studies()) == 1, "no checkpoint has been added"
    world.arrive(30)
    world.arrive(40)
    window = world.studies()[-1].checkpoints
    steps = {c.id: c.step for c in world.all(CheckpointRecord)}
    assert [steps[key] for key in window] == [10, 20, 30, 40]
    assert window[1] == better.id


def test_the_newest_is_the_one_that_stands(world) -> None:
    better = world.arrive(10, value=11, supersede=True).record
    with world.store.read() as snapshot:
        run = snapshot.find(RunRecord)[0]
        best = best_of(snapshot, run)
    assert best is not None
    assert [weight.checkpoint for weight in best.weights] == [better.id]


def test_a_study_by_hand_names_steps_and_gets_what_stands(world) -> None:
    world.arrive(20)
    world.conclude()
    better = world.arrive(10, value=11, supersede=True).record
    with world.store.write() as unit:
        opened = open_by_hand(
            unit, NewStudy(run="run", steps=[10, 20]), key=None, now=0.0, new_id=world.new_id
        )
    assert opened.record.checkpoints[0] == better.id


class TestRetention:
    def test_without_rules_the_superseded_bytes_stay(self, world) -> None:
        world.arrive(10, value=11, supersede=True)
        assert not self.plan(world, Retention()).goes

    def test_they_are_the_first_to_go_and_push_nothing_out(self, world) -> None:
        old = at(world, 10).id
        world.arrive(10, value=11, supersede=True)
        for step in (20, 30, 40, 50, 60, 70):
            world.arrive(step)
        self.finish(world)
        plan = self.plan(world, Retention(keep_last=7))
        assert [item.id for item in plan.goes] == [old]
        assert "taken its place" in plan.goes[0].reason

    def test_a_study_that_needs_them_keeps_them(self, world) -> None:
        old = at(world, 10).id
        world.arrive(20)
        world.arrive(10, value=11, supersede=True)
        stays = {item.id: item.reason for item in self.plan(world, Retention(keep_last=1)).stays}
        assert "still going" in stays[old]

    def plan(self, world: World, policy: Retention):
        with world.store.read() as snapshot:
            return plan_retention(snapshot, snapshot.find(RunRecord)[0], policy, now=0.0)

    def finish(self, world: World) -> None:
        """Let every study end whose window a later one has left behind."""
        while world.studies()[-1].state == "searching":
            world.conclude()


def test_a_step_that_nobody_registered_is_missing(world) -> None:
    with pytest.raises(MissingError, match="no checkpoint at step 11"):
        at(world, 11)
