"""Studies that somebody opens: over which checkpoints they may be, and what a key is for."""

from dataclasses import replace

import pytest

from ckptmerge.domain.study import StudyState
from ckptmerge.errors import InvalidInputError, MissingError, RefusedError
from ckptmerge.storage.records import CheckpointRecord, EventRecord, RunRecord
from ckptmerge.wire.studies import NewStudy
from ckptmerge.workflow.open_by_hand import Opened, open_by_hand
from tests.unit.workflow.conducted import World


@pytest.fixture
def world() -> World:
    """A run of four checkpoints, whose policy never opens a study."""
    made = World()
    change_run(made, window=replace(run(made).window, every=1000))
    for step in (100, 200, 300, 400):
        made.arrive(step)
    return made


def run(world: World) -> RunRecord:
    return world.all(RunRecord)[0]


def change_run(world: World, **changes) -> None:
    with world.store.write() as unit:
        unit.update(replace(unit.get(RunRecord, "run"), **changes))


def opened(world: World, key: str | None = None, **wanted) -> Opened:
    with world.store.write() as unit:
        return open_by_hand(
            unit, NewStudy.model_validate({"run": "run", **wanted}), key=key, now=0.0,
            new_id=world.new_id,
        )  # fmt: skip


def steps(world: World, of: Opened) -> list[int]:
    known = {c.id: c.step for c in world.all(CheckpointRecord)}
    return [known[key] for key in of.record.checkpoints]


def ids(world: World) -> dict[int, str]:
    return {c.step: c.id for c in world.all(CheckpointRecord)}


@pytest.mark.parametrize("wanted", [{"steps": [200, 400]}, {"window": 3}])
def test_the_checkpoints_are_those_that_were_asked_for(world, wanted) -> None:
    made = opened(world, **wanted)
    assert made.new
    assert steps(world, made) == wanted.get("steps", [200, 300, 400])
    assert world.studies()[-1] == made.record
    assert world.all(EventRecord)[-1].data["study"] == made.record.id


def test_checkpoints_may_be_named_by_their_ids(world) -> None:
    known = ids(world)
    assert opened(world, checkpoints=[known[100], known[400]]).record.checkpoints == (
        known[100], known[400],
    )  # fmt: skip


def test_it_is_searched_as_the_run_says_but_for_what_the_request_says(world) -> None:
    spec = opened(world, steps=[300, 400], study={"space": "pair", "seed": 9}).record.spec
    assert (spec.space.kind, spec.seed, spec.budget) == ("pair", 9, 12)


def test_it_comes_to_a_verdict_like_any_other(world) -> None:
    opened(world, steps=[100, 400])
    assert world.conclude().state is StudyState.DECIDED


def test_the_window_policy_goes_on_as_if_nothing_had_been_opened(world) -> None:
    before = run(world)
    opened(world, window=2)
    assert run(world) == before


def test_a_run_has_one_study_at_a_time(world) -> None:
    first = opened(world, window=2).record
    with pytest.raises(RefusedError, match=f"{first.id}.*one at a time"):
        opened(world, window=3)


@pytest.mark.parametrize(
    ("wanted", "error", "complaint"),
    [
        ({"steps": [400]}, InvalidInputError, "at least two"),
        ({"steps": [400, 300]}, InvalidInputError, "oldest first"),
        ({"steps": [400, 400]}, InvalidInputError, "twice"),
        ({"steps": [300, 350, 400]}, MissingError, "no checkpoint at step 350$"),
        ({"checkpoints": ["c_nothing", "c_else"]}, MissingError, "no checkpoint 'c_nothing'"),
        ({"window": 5}, InvalidInputError, "has 4 complete checkpoints, not 5"),
        ({}, InvalidInputError, "none of them"),
        ({"steps": [300, 400], "window": 2}, InvalidInputError, "steps and window"),
        ({"window": 3, "study": {"space": "pair"}}, InvalidInputError, "weighs two"),
        ({"window": 3, "study": {"budget": 3}}, InvalidInputError, "use at least 4"),
        ({"run": "other", "window": 2}, MissingError, "no run 'other'"),
    ],
)
def test_what_makes_no_window_is_refused_and_changes_nothing(
    world, wanted, error, complaint
) -> None:
    with pytest.raises(error, match=complaint):
        opened(world, **wanted)
    assert world.studies() == []


def test_an_incomplete_checkpoint_is_refused_by_what_it_lacks(world) -> None:
    world.arrive(500, without=["tokenizer.json"])
    with pytest.raises(InvalidInputError, match=r"step 500.*lacks tokenizer"):
        opened(world, steps=[400, 500])
    assert steps(world, opened(world, window=2)) == [300, 400]


def test_a_checkpoint_without_bytes_is_refused(world) -> None:
    with world.store.write() as unit:
        unit.update(replace(unit.get(CheckpointRecord, ids(world)[300]), removed=1.0))
    with pytest.raises(InvalidInputError, match=r"step 300.*removed"):
        opened(world, steps=[300, 400])
    assert steps(world, opened(world, window=2)) == [200, 400]


def test_attempts_are_not_mixed(world) -> None:
    old = ids(world)
    world.arrive(300, next_attempt=True, value=7)
    world.arrive(500, value=8)
    new = {(c.attempt, c.step): c.id for c in world.all(CheckpointRecord)}
    with pytest.raises(InvalidInputError, match="attempts 1, 2"):
        opened(world, checkpoints=[old[200], new[2, 500]])
    with pytest.raises(MissingError, match="no attempt"):
        opened(world, steps=[200, 500])
    made = opened(world, steps=[300, 500])
    assert made.record.checkpoints == (new[2, 300], new[2, 500])


def test_steps_that_two_attempts_have_are_those_of_the_later_one(world) -> None:
    world.arrive(300, next_attempt=True, value=7)
    world.arrive(400, value=8)
    new = {(c.attempt, c.step): c.id for c in world.all(CheckpointRecord)}
    made = opened(world, steps=[300, 400])
    assert made.record.checkpoints == (new[2, 300], new[2, 400])


def test_what_an_old_window_promotes_must_beat_the_newest_checkpoint(world) -> None:
    """Before the first promotion a run's best is its newest checkpoint, wherever a window ends."""
    made = opened(world, steps=[100, 200]).record
    newest = world.all(CheckpointRecord)[-1]
    assert (made.ahead, newest.step) == (newest.id, 400)
    world.beyond[newest.id] = 1.0  # far better than anything the old window can come to
    verdict = world.conclude().verdict
    assert verdict is not None
    assert verdict.best is None
    assert any(
        g.against == "current best" and g.interval.high < 0
        for c in verdict.certificates
        for g in c.gains
    )


def test_what_an_old_window_promotes_becomes_best_where_it_beats_the_newest(world) -> None:
    opened(world, steps=[100, 200])
    world.beyond[world.all(CheckpointRecord)[-1].id] = 3.0
    verdict = world.conclude().verdict
    assert verdict is not None
    assert verdict.best == run(world).best is not None


def test_a_window_that_holds_the_newest_checkpoint_has_no_rival_beyond_it(world) -> None:
    assert opened(world, window=2).record.ahead is None


def test_the_same_key_and_request_give_the_same_study(world) -> None:
    first = opened(world, key="k", window=2)
    again = opened(world, key="k", window=2)
    assert again == Opened(first.record, new=False)
    world.conclude()
    assert opened(world, key="k", window=2).record.id == first.record.id
    assert len(world.studies()) == 1


def test_the_same_key_with_another_request_is_refused(world) -> None:
    first = opened(world, key="k", window=2)
    with pytest.raises(InvalidInputError, match=f"'k' came with another.*{first.record.id}"):
        opened(world, key="k", window=3)


def test_another_key_is_another_request(world) -> None:
    opened(world, key="k", window=2)
    world.conclude()
    assert opened(world, key="l", window=2).new
    world.conclude()
    assert opened(world, window=2).new
