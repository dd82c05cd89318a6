"""What one study has measured, the next one does not measure again."""

from dataclasses import replace

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.task import Order, TaskKind
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.storage.records import (
    CheckpointRecord,
    HeldOutRecord,
    RunRecord,
    StudyRecord,
    TaskRecord,
    WindowPolicy,
)
from ckptmerge.workflow.conclude import passes
from ckptmerge.workflow.known_scores import find_scores
from ckptmerge.workflow.open_studies import open_due
from ckptmerge.workflow.stored import load_study
from tests.unit.workflow.conducted import World

NEWEST = Order(weights=MergeWeights.vertex(2, -1), split=Split.SEARCH)


def alike(weights: MergeWeights) -> float:
    """Bits per byte where all checkpoints are equally good, in whichever window they stand."""
    return 2.0 + 0.1 * sum(weight**2 for weight in weights.values)


@pytest.fixture
def world() -> World:
    """Two studies, over steps 10 and 20 and over steps 10 to 40."""
    world = World(loss=alike)
    for step in (10, 20):
        world.arrive(step)
    world.conclude()
    for step in (30, 40):
        world.arrive(step)
    world.conclude()
    return world


def tasks(world: World, study: int) -> list[TaskRecord]:
    key = world.studies()[study].id
    return [record for record in world.all(TaskRecord) if record.study == key]


def test_a_checkpoint_of_two_windows_is_measured_once(world: World) -> None:
    first, second = tasks(world, 0), tasks(world, 1)
    assert not any(record.reused for record in first)
    reused = [record for record in second if record.reused and record.task.trial is not None]
    older = [MergeWeights.vertex(4, place) for place in (0, 1)]
    assert [record.task.order.weights for record in reused] == older
    assert all(record.task.fence == 0 and record.observation for record in reused)


def test_what_is_reused_costs_no_pass(world: World) -> None:
    key = world.studies()[1].id
    with world.store.read() as snapshot:
        stored = load_study(snapshot, key)
    measured = [record for record in tasks(world, 1) if record.task.fence]
    searched = [r for r in measured if r.task.order.split is Split.SEARCH]
    assert stored.study.passes == len(stored.study.trials) - 2 == len(searched)
    # The newest is scored twice, to learn how noisy the machine is.
    assert passes(stored)[Split.SEARCH] == len(searched) + 1


def test_the_files_of_what_was_best_are_not_scored_again(world: World) -> None:
    best = world.studies()[0].verdict
    assert best is not None
    again = [r for r in tasks(world, 1) if r.task.order.subject == best.best]
    assert [r.reused for r in again if r.task.order.split is Split.CERTIFY] == [True]


def test_the_study_comes_to_what_it_would_have_come_to(world: World) -> None:
    alone = World(loss=alike)
    with alone.store.write() as unit:
        run = unit.get(RunRecord, "run")
        assert run is not None
        unit.update(replace(run, window=WindowPolicy(size=4, every=4, minimum=4)))
    for step in (10, 20, 30, 40):
        alone.arrive(step)
    alone.conclude()
    observed = [
        [r.observation for r in tasks(one, study) if r.task.trial is not None]
        for one, study in ((world, 1), (alone, 0))
    ]
    assert observed[0] == observed[1]


def test_a_newest_checkpoint_that_was_scored_once_is_scored_again(world: World) -> None:
    study = replace(world.studies()[0], checkpoints=world.studies()[1].checkpoints[:2])
    oldest = Order(weights=MergeWeights.vertex(2, 0), split=Split.SEARCH)
    with world.store.read() as snapshot:
        assert find_scores(snapshot, study, TaskKind.EVALUATE, oldest)
        twice = replace(oldest, repeat=True)
        assert find_scores(snapshot, study, TaskKind.EVALUATE, twice) is None


@pytest.mark.parametrize(
    "change",
    [
        {"context": 17},
        {"dtype": "bf16"},
        {"held_out": "other"},
        {"split": Split.CERTIFY},
        {"tokenizer": b"[]"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_scores_are_reused_only_where_all_they_depend_on_is_the_same(
    world: World, change: dict
) -> None:
    study, order = world.studies()[0], NEWEST
    with world.store.write() as unit:
        known = unit.get(HeldOutRecord, "default")
        assert known is not None
        unit.insert(replace(known, name="other", digest=Digest.of_bytes(b"other documents")))
        assert find_scores(unit, study, TaskKind.EVALUATE, order)
        study, order = _changed(unit, study, order, change)
        assert find_scores(unit, study, TaskKind.EVALUATE, order) is None


def _changed(unit, study: StudyRecord, order: Order, change: dict) -> tuple[StudyRecord, Order]:
    ((name, value),) = change.items()
    if name == "split":
        return study, replace(order, split=value)
    if name == "dtype":
        return replace(study, spec=replace(study.spec, dtype=value)), order
    if name != "tokenizer":
        return replace(study, **change), order
    newest = next(c for c in _checkpoints(unit) if c.id == study.checkpoints[-1])
    files = tuple(
        replace(file, digest=Digest.of_bytes(value)) if file.name == "tokenizer.json" else file
        for file in newest.manifest.files
    )
    unit.update(replace(newest, manifest=replace(newest.manifest, files=files)))
    return study, order


def _checkpoints(unit) -> list[CheckpointRecord]:
    return unit.find(CheckpointRecord)


def test_a_window_ends_where_it_was_due_however_late_its_study_is_opened() -> None:
    world = World()
    for step in (10, 20, 30, 40, 50):  # a study every two; the first is still going on
        world.arrive(step)
    world.conclude()
    with world.store.write() as unit:
        run = unit.get(RunRecord, "run")
        assert run is not None
        opened = open_due(unit, run, now=0.0, new_id=world.new_id)
        assert opened is not None
        steps = [c.step for c in _checkpoints(unit) if c.id in opened.checkpoints]
    assert steps == [10, 20, 30, 40]
    world.arrive(60)
    world.conclude()
    assert world.all(RunRecord)[0].considered == 4, "the one at 60 opens when this one is over"
