"""Retention of a run: what is given up, what stays of it, and how it comes back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ckptmerge.domain.observation import Split
from ckptmerge.domain.retention import Retention
from ckptmerge.domain.run import Era, Run
from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import Order, TaskKind
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import MissingError, RefusedError
from ckptmerge.storage.records import (
    ArtifactRecord,
    CheckpointRecord,
    EventRecord,
    Pin,
    RunRecord,
    StudyRecord,
    WindowPolicy,
)
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire.studies import NewStudy
from ckptmerge.workflow.admit import complete
from ckptmerge.workflow.best import best_of
from ckptmerge.workflow.cancel import cancel_study
from ckptmerge.workflow.open_by_hand import open_by_hand
from ckptmerge.workflow.retain import Plan, freed_by, pin_checkpoint, plan_retention, retain
from ckptmerge.workflow.stored import load_study
from ckptmerge.workflow.tasks import add_task
from tests.unit.workflow.conducted import World

LAST = Retention(keep_last=1)


class Keeper(World):
    """A world whose run keeps the bytes that it must, and no more."""

    def set_run(self, **changes) -> RunRecord:
        with self.store.write() as unit:
            return unit.update(replace(unit.find(RunRecord)[0], **changes))

    def retain(self, policy: Retention | None = None, now: float = 9.0) -> Plan:
        if policy is not None:
            self.set_run(retention=policy)
        return retain(self.store, "run", now=now, new_id=self.new_id)

    def plan(self, policy: Retention) -> Plan:
        with self.store.read() as snapshot:
            return plan_retention(snapshot, snapshot.find(RunRecord)[0], policy, now=9.0)

    def held(self) -> list[int]:
        """Return the steps whose bytes are there."""
        return sorted(c.step for c in self.all(CheckpointRecord) if c.removed is None)

    def at(self, step: int) -> CheckpointRecord:
        return next(c for c in self.all(CheckpointRecord) if c.step == step)

    def pin(self, step: int, *, pinned: bool = True) -> CheckpointRecord:
        with self.store.write() as unit:
            return pin_checkpoint(unit, "run", step, pinned=pinned)

    def events(self, *kinds: str) -> list[EventRecord]:
        return [event for event in self.all(EventRecord) if event.kind in kinds]

    def steps_of(self, study: StudyRecord) -> list[int]:
        steps = {c.id: c.step for c in self.all(CheckpointRecord)}
        return [steps[key] for key in study.checkpoints]


@pytest.fixture
def quiet() -> Keeper:
    """Ten checkpoints of a run that opens no studies."""
    world = Keeper()
    world.set_run(window=WindowPolicy(size=2, every=1, minimum=64))
    for step in range(10, 110, 10):
        world.arrive(step)
    return world


@pytest.fixture
def judged() -> Keeper:
    """A run whose first study has promoted a merge of steps 10 and 20."""
    world = Keeper()
    world.arrive(10)
    world.arrive(20)
    assert world.conclude().state is StudyState.DECIDED
    return world


def test_what_is_removed_keeps_its_record_and_says_when_and_why(quiet: Keeper) -> None:
    before = quiet.at(10)
    plan = quiet.retain(Retention(keep_last=3), now=9.0)
    assert [item.step for item in plan.goes] == [10, 20, 30, 40, 50, 60, 70]
    assert quiet.at(10) == replace(before, removed=9.0)
    assert quiet.held() == [80, 90, 100]
    told = quiet.events("checkpoint-removed")
    assert len(told) == 7
    reason = "3 newer ones stay (keep_last)"
    assert told[0].data == {"checkpoint": before.id, "step": 10, "reason": reason}


def test_removing_again_removes_nothing_and_says_nothing(quiet: Keeper) -> None:
    quiet.retain(LAST)
    events = quiet.all(EventRecord)
    assert quiet.retain().goes == ()
    assert quiet.all(EventRecord) == events


def test_a_plan_changes_nothing(quiet: Keeper) -> None:
    records = quiet.all(CheckpointRecord)
    assert len(quiet.plan(LAST).goes) == 8
    assert quiet.all(CheckpointRecord) == records
    assert quiet.events("checkpoint-removed") == []


def test_a_pin_holds_a_checkpoint_until_it_is_taken_back(quiet: Keeper) -> None:
    quiet.pin(20)
    quiet.retain(LAST)
    assert quiet.held() == [20, 90, 100]
    quiet.pin(20, pinned=False)
    quiet.retain(LAST)
    assert quiet.held() == [90, 100]


def test_what_is_removed_cannot_be_pinned_and_what_is_not_there_neither(quiet: Keeper) -> None:
    quiet.retain(LAST)
    with pytest.raises(RefusedError, match="were removed; send them again"):
        quiet.pin(20)
    with pytest.raises(MissingError, match="no checkpoint at step 25"):
        quiet.pin(25)


def test_the_same_bytes_sent_again_bring_a_checkpoint_back(quiet: Keeper) -> None:
    quiet.retain(LAST)
    back = quiet.arrive(20)
    assert back.new
    assert back.record == replace(quiet.at(20), removed=None)
    assert quiet.held() == [20, 90, 100]
    assert len(quiet.all(CheckpointRecord)) == 10
    assert not quiet.arrive(20).new
    registered = [e.data["step"] for e in quiet.events("checkpoint-registered")]
    assert registered == [*range(10, 110, 10), 20]


def test_files_of_the_run_complete_no_checkpoint_whose_bytes_are_gone(quiet: Keeper) -> None:
    quiet.arrive(5, without=("config.json",))
    quiet.retain(LAST)
    assert quiet.at(5).removed == 9.0
    with quiet.store.write() as unit:
        run = unit.update(replace(unit.find(RunRecord)[0], files=quiet.at(10).manifest.files))
        assert complete(unit, quiet.blobs, run, now=0.0, new_id=quiet.new_id) == []
    assert quiet.at(5).missing == ("config.json",)


def test_removed_checkpoints_are_counted_so_the_next_window_comes_in_time(quiet: Keeper) -> None:
    quiet.retain(LAST)
    quiet.set_run(window=WindowPolicy(size=2, every=2, minimum=2), considered=10)
    quiet.arrive(110)
    assert quiet.studies() == []
    quiet.arrive(120)
    assert quiet.steps_of(quiet.studies()[0]) == [110, 120]


def test_a_removed_checkpoint_enters_no_window(quiet: Keeper) -> None:
    quiet.retain(LAST)
    quiet.set_run(window=WindowPolicy(size=4, every=1, minimum=2))
    quiet.arrive(110)
    assert quiet.steps_of(quiet.studies()[0]) == [90, 100, 110]


def test_the_window_that_is_due_later_stays_whole(quiet: Keeper) -> None:
    """A window ends with every third checkpoint, while newer ones have come already."""
    quiet.set_run(window=WindowPolicy(size=3, every=3, minimum=2), considered=6)
    quiet.retain(LAST)
    assert quiet.held() == [60, 70, 80, 90, 100]
    with quiet.store.read() as snapshot:
        run = snapshot.find(RunRecord)[0]
    quiet.arrive(110)
    assert run.considered == 6
    assert quiet.steps_of(quiet.studies()[0]) == [70, 80, 90]


def test_a_study_that_goes_on_keeps_its_window_and_its_merges(judged: Keeper) -> None:
    judged.set_run(window=WindowPolicy(size=4, every=2, minimum=2))
    for step in (30, 40):
        judged.arrive(step)
    judged.set_run(window=WindowPolicy(size=1, every=1, minimum=64))
    plan = judged.retain(Retention(keep_last=1, keep_best=1))
    assert plan.goes == ()
    study = judged.studies()[-1]
    reasons = {item.step: item.reason for item in plan.stays if item.kind == "checkpoint"}
    assert reasons[10] == f"study {study.id} is still going, and needs it"


def test_the_newest_checkpoint_that_an_old_window_must_beat_stays(quiet: Keeper) -> None:
    wanted = NewStudy(run="run", steps=[10, 20])
    with quiet.store.write() as unit:
        study = open_by_hand(unit, wanted, key=None, now=0.0, new_id=quiet.new_id).record
    assert study.ahead == quiet.at(100).id
    quiet.arrive(110)
    quiet.arrive(120)
    quiet.set_run(window=WindowPolicy(size=1, every=1, minimum=64))
    quiet.retain(LAST)
    assert quiet.held() == [10, 20, 100, 120]


def write_merges(world: Keeper) -> StudyRecord:
    """Take the newest study to where its merge is written and nothing is decided."""
    while not any(a.study == world.studies()[-1].id for a in world.all(ArtifactRecord)):
        moved = world.conductor.advance(world.studies()[-1].id)
        record = world.lease()
        if record is not None:
            world.finish(record, world.work(record.task))
        assert moved or record is not None
    return world.studies()[-1]


def test_a_merge_that_is_still_tested_stays_and_goes_with_its_cancelled_study() -> None:
    world = Keeper()
    world.arrive(10)
    world.arrive(20)
    study = write_merges(world)
    assert world.retain().goes == ()
    with world.store.write() as unit:
        cancel_study(unit, study, reason="by hand", now=0.0, new_id=world.new_id)
    plan = world.retain(Retention())
    written = world.all(ArtifactRecord)
    assert [item.id for item in plan.goes] == [artifact.id for artifact in written]
    assert [artifact.removed for artifact in written] == [9.0] * len(written)
    assert [e.data["artifact"] for e in world.events("artifact-removed")] == [written[0].id]


def test_a_merge_stays_from_the_moment_it_is_on_record(quiet: Keeper) -> None:
    """A service may be killed between recording it and asking for its scores."""
    quiet.set_run(window=WindowPolicy(size=2, every=1, minimum=2))
    record = quiet.arrive(110).record
    artifact = ArtifactRecord(
        id="a_1", run="run", study=quiet.studies()[0].id, name="winner", dtype="keep",
        weights=MergeWeights.of(0.5, 0.5), manifest=record.manifest, created=0,
    )  # fmt: skip
    with quiet.store.write() as unit:
        unit.insert(artifact)
    assert [item.id for item in quiet.retain(LAST).goes if item.kind == "merge"] == []
    assert quiet.all(ArtifactRecord) == [artifact]


def test_a_cancelled_study_records_no_merge_any_more() -> None:
    world = Keeper()
    world.arrive(10)
    world.arrive(20)
    stored = None
    while stored is None or not any(t.task.kind == "materialise" for t in stored.tasks):
        world.conductor.advance(world.studies()[-1].id)
        record = world.lease()
        if record is not None:
            world.finish(record, world.work(record.task))
        with world.store.read() as snapshot:
            stored = load_study(snapshot, world.studies()[-1].id)
    with world.store.write() as unit:
        cancel_study(unit, stored.record, reason="by hand", now=0.0, new_id=world.new_id)
    assert not world.conductor.advance(stored.record.id)
    assert world.all(ArtifactRecord) == []


def test_what_a_study_that_goes_on_compares_with_stays(quiet: Keeper) -> None:
    quiet.set_run(window=WindowPolicy(size=2, every=1, minimum=2))
    quiet.arrive(110)
    with quiet.store.write() as unit:
        add_task(
            unit, key="l", study=quiet.studies()[0].id, kind=TaskKind.CERTIFY, name="rival",
            order=Order(subject=quiet.at(30).id, split=Split.CERTIFY), now=0.0,
        )  # fmt: skip
    quiet.retain(LAST)
    assert quiet.held() == [30, 100, 110]


def test_the_best_and_its_parents_stay(judged: Keeper) -> None:
    judged.set_run(window=WindowPolicy(size=1, every=1, minimum=64))
    for step in (30, 40, 50):
        judged.arrive(step)
    judged.retain(Retention(keep_last=1, keep_best=1))
    assert judged.held() == [10, 20, 50]
    with judged.store.read() as snapshot:
        best = best_of(snapshot, snapshot.find(RunRecord)[0])
    assert best is not None
    assert best.kind == "merge"


def test_what_somebody_put_in_place_of_the_best_stays_beside_it(quiet: Keeper) -> None:
    pin = Pin(subject=quiet.at(30).id, reason="safer", at=0.0)
    quiet.set_run(best=quiet.at(50).id, pin=pin)
    quiet.retain(LAST)
    assert quiet.held() == [30, 50, 90, 100]


def test_freed_are_only_the_files_that_nothing_else_names(quiet: Keeper) -> None:
    """Every checkpoint has the same configuration and tokenizer: one blob each."""
    weights = quiet.at(10).manifest.files[1]
    assert weights.name == "model.safetensors"
    plan = quiet.plan(Retention(keep_last=3))
    with quiet.store.read() as snapshot:
        assert freed_by(snapshot, plan) == 7 * weights.size
        assert freed_by(snapshot, quiet.plan(Retention())) == 0
    assert sum(item.bytes for item in plan.goes) == 7 * (weights.size + 4)


def test_bytes_that_another_run_names_are_not_freed(quiet: Keeper) -> None:
    with quiet.store.write() as unit:
        run = unit.find(RunRecord)[0]
        unit.insert(replace(run, name="twin", run=Run("twin", Era(run.run.era.held_out))))
        unit.insert(replace(quiet.at(10), id="c_twin", run="twin"))
    weights = quiet.at(10).manifest.files[1]
    with quiet.store.read() as snapshot:
        assert freed_by(snapshot, quiet.plan(Retention(keep_last=3))) == 6 * weights.size


def test_a_pin_that_was_set_after_the_look_is_seen(quiet: Keeper) -> None:
    """The look and the change are two; what came in between counts."""
    quiet.set_run(retention=LAST)
    read = quiet.store.read

    @contextmanager
    def look_then_pin() -> Iterator[Snapshot]:
        with read() as snapshot:
            quiet.store.read = read
            quiet.pin(20)
            yield snapshot

    quiet.store.read = look_then_pin
    assert 20 not in [item.step for item in quiet.retain().goes]
    assert quiet.held() == [20, 90, 100]
