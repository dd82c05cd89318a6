"""A best that a person has chosen: what may be chosen, what goes on meanwhile, and what returns."""

from dataclasses import replace

import pytest

from ckptmerge.domain.study import StudyState
from ckptmerge.errors import MissingError, RefusedError
from ckptmerge.storage.records import ArtifactRecord, CheckpointRecord, EventRecord, RunRecord
from ckptmerge.wire.best import Best
from ckptmerge.workflow.best import best_of
from ckptmerge.workflow.pin import pin_best, unpin_best
from tests.unit.workflow.conducted import World, loss

WHY = "the merge repeats itself"


class Hand(World):
    """A world with somebody who does not trust its best."""

    @property
    def run(self) -> RunRecord:
        return self.all(RunRecord)[0]

    def pin(self, subject: str, reason: str = WHY, at: float = 5.0) -> RunRecord:
        with self.store.write() as unit:
            kind = "artifact" if subject.startswith("a_") else "checkpoint"
            return pin_best(
                unit, self.blobs, unit.find(RunRecord)[0], reason=reason, now=at,
                new_id=self.new_id, **{kind: subject},
            )  # fmt: skip

    def unpin(self) -> RunRecord:
        with self.store.write() as unit:
            return unpin_best(unit, unit.find(RunRecord)[0], now=6.0, new_id=self.new_id)

    def best(self) -> Best:
        with self.store.read() as snapshot:
            best = best_of(snapshot, snapshot.find(RunRecord)[0])
        assert best is not None
        return best

    def by_hand(self) -> list[EventRecord]:
        return [e for e in self.all(EventRecord) if e.kind.startswith(("best-pin", "best-unpin"))]

    def change(self, record) -> None:
        with self.store.write() as unit:
            unit.update(record)


@pytest.fixture
def world() -> Hand:
    """A run whose first study has promoted a merge."""
    world = Hand()
    world.arrive(10)
    world.arrive(20)
    world.conclude()
    return world


def better(weights) -> float:
    """Windows of four merge to something better than windows of two."""
    return loss(weights) - (len(weights.values) == 4)


def test_a_checkpoint_is_served_while_it_is_pinned_and_the_merge_again_after(world) -> None:
    merge, checkpoint = world.best(), world.all(CheckpointRecord)[0]
    world.pin(checkpoint.id)
    pinned = world.best()
    assert (pinned.kind, pinned.step, pinned.promoted) == ("checkpoint", 10, False)
    assert pinned.digest == str(checkpoint.manifest.digest)
    assert (pinned.score, pinned.gains, pinned.study) == (None, [], None)
    assert pinned.pinned is not None
    assert (pinned.pinned.reason, pinned.pinned.at) == (WHY, "1970-01-01T00:00:05.000Z")
    assert pinned.reason == f"pinned by hand: {WHY}"
    world.unpin()
    assert world.best() == merge


def test_every_change_by_hand_is_on_record_once(world) -> None:
    merge, checkpoint = world.best().artifact, world.all(CheckpointRecord)[0].id
    for _ in range(2):
        world.pin(checkpoint)
    for _ in range(2):
        world.unpin()
    pinned, unpinned = world.by_hand()
    assert (pinned.kind, unpinned.kind) == ("best-pinned", "best-unpinned")
    assert pinned.data == {"reason": WHY, "before": merge, "after": checkpoint}
    assert unpinned.data == {"reason": WHY, "before": checkpoint, "after": merge}


def test_another_reason_for_the_same_pin_is_on_record_too(world) -> None:
    checkpoint = world.all(CheckpointRecord)[0].id
    world.pin(checkpoint)
    assert world.pin(checkpoint, at=9.0).pin == world.run.pin, "the same again keeps its time"
    world.pin(checkpoint, "worse on the long documents")
    assert [event.data["reason"] for event in world.by_hand()] == [
        WHY,
        "worse on the long documents",
    ]


def test_a_study_reports_under_a_pin_and_promotes_nothing(world) -> None:
    first = world.best()
    world.pin(world.all(CheckpointRecord)[0].id)
    world.loss = better
    world.arrive(30)
    world.arrive(40)
    study = world.conclude()
    assert study.state is StudyState.DECIDED
    assert study.verdict is not None
    assert study.verdict.certificates[-1].passed
    assert study.verdict.best is None
    assert study.verdict.reason.endswith("would have been promoted; the best is pinned by hand")
    assert [record.promoted for record in world.all(ArtifactRecord)] == [True, False]
    assert world.best().step == 10
    assert world.all(EventRecord)[-1].kind == "study-decided"
    world.unpin()
    assert world.best() == first, "what was promoted last, which was before the pin"


def test_training_that_overtakes_the_merge_does_not_lift_a_pin(world) -> None:
    merge = world.run.best
    old = world.all(ArtifactRecord)[0]
    world.pin(world.all(CheckpointRecord)[0].id)
    world.loss = lambda w: loss(w) if w == old.weights else 1.0 + (1 - w.values[-1]) ** 2
    world.arrive(30)
    world.arrive(40)
    study = world.conclude()
    assert study.verdict is not None
    assert study.verdict.certificates[-1].passed
    assert study.verdict.best is None
    assert "would have been promoted" in study.verdict.reason
    assert (world.run.best, world.best().step) == (merge, 10)


def test_a_pin_is_nobodys_rival(world) -> None:
    """Studies go on testing against what was promoted, however bad the pinned one is."""
    world.pin(world.all(CheckpointRecord)[0].id)
    world.arrive(30)
    world.arrive(40)
    study = world.conclude()
    assert study.verdict is not None
    assert "current best" in {g.against for g in study.verdict.certificates[0].gains}
    assert not study.verdict.certificates[0].passed, "exactly as good as the promoted merge"


def test_a_run_that_was_pinned_before_anything_was_promoted_returns_to_the_newest() -> None:
    world = Hand()
    world.arrive(10)
    world.pin(world.all(CheckpointRecord)[0].id)
    world.arrive(20)
    world.conclude()
    assert world.best().step == 10
    world.unpin()
    best = world.best()
    assert (best.kind, best.step, best.promoted, best.gains) == ("checkpoint", 20, False, [])
    assert best.score == best.baselines["newest"], "not that of the merge that passed"


def test_a_merge_that_was_superseded_can_be_brought_back_with_its_numbers(world) -> None:
    first = world.best()
    world.loss = better
    world.arrive(30)
    world.arrive(40)
    world.conclude()
    second = world.best()
    assert first.artifact is not None
    assert second.artifact not in {None, first.artifact}
    world.pin(first.artifact)
    best = world.best()
    assert (best.artifact, best.promoted, best.gains) == (first.artifact, True, first.gains)
    assert best.reason == f"pinned by hand: {WHY}; {first.reason}"
    world.unpin()
    assert world.best() == second


def test_a_merge_that_was_never_promoted_is_nobodys_business(world) -> None:
    [artifact] = world.all(ArtifactRecord)
    world.change(replace(artifact, promoted=False))
    with pytest.raises(MissingError, match="never promoted"):
        world.pin(artifact.id)
    with pytest.raises(MissingError, match="has no checkpoint"), world.store.write() as unit:
        pin_best(
            unit, world.blobs, world.run, checkpoint=artifact.id, reason=WHY, now=0.0,
            new_id=world.new_id,
        )  # fmt: skip


def test_what_is_of_another_run_is_not_there(world) -> None:
    [artifact] = world.all(ArtifactRecord)
    world.change(replace(artifact, run="another"))
    checkpoint = world.all(CheckpointRecord)[0]
    world.change(replace(checkpoint, run="another"))
    for subject in (artifact.id, checkpoint.id, "c_none"):
        with pytest.raises(MissingError, match=r"has no checkpoint|never promoted"):
            world.pin(subject)
    assert world.by_hand() == []


def test_an_incomplete_checkpoint_cannot_be_served(world) -> None:
    record = world.arrive(25, without=["config.json"]).record
    with pytest.raises(RefusedError, match=r"config\.json missing"):
        world.pin(record.id)


def test_what_has_lost_its_bytes_cannot_be_served(world) -> None:
    checkpoint = world.all(CheckpointRecord)[0]
    world.change(replace(checkpoint, removed=1.0))
    [artifact] = world.all(ArtifactRecord)
    world.blobs.delete(artifact.manifest.files[0].digest)
    for subject in (checkpoint.id, artifact.id):
        with pytest.raises(RefusedError, match="bytes were removed"):
            world.pin(subject)
    assert world.run.pin is None
