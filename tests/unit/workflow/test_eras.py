"""A run that is judged on other documents: what ends, what begins anew, and what stays best."""

from dataclasses import replace

import pytest

from ckptmerge.domain.certificate import alpha
from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.retention import Retention
from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import TaskKind, TaskState
from ckptmerge.errors import InvalidInputError, MissingError
from ckptmerge.storage.records import (
    AlphaRecord,
    ArtifactRecord,
    EventRecord,
    HeldOutRecord,
    RunRecord,
    TaskRecord,
    WindowPolicy,
)
from ckptmerge.wire.best import Best
from ckptmerge.workflow.best import best_of
from ckptmerge.workflow.change_run import change_run
from ckptmerge.workflow.conclude import conclude
from ckptmerge.workflow.desk import WaitingError
from ckptmerge.workflow.stored import load_study
from tests.unit.workflow.conducted import World, loss


class Judged(World):
    """A world with a second held-out set, and a third of the first one's documents."""

    def __post_init__(self) -> None:
        super().__post_init__()
        with self.store.write() as unit:
            first = unit.find(HeldOutRecord)[0]
            for name, digest in (("other", Digest.of_bytes(b"other")), ("copy", first.digest)):
                file = FileEntry("h", 1, Digest.of_bytes(b"h"))
                unit.insert(HeldOutRecord(name=name, digest=digest, file=file, created=0))

    @property
    def run(self) -> RunRecord:
        return self.all(RunRecord)[0]

    def change(self, **settings) -> RunRecord:
        with self.store.write() as unit:
            return change_run(
                unit, unit.find(RunRecord)[0], now=0.0, new_id=self.new_id, **settings
            )

    def best(self) -> Best:
        with self.store.read() as snapshot:
            best = best_of(snapshot, snapshot.find(RunRecord)[0])
        assert best is not None
        return best

    def kinds(self) -> list[str]:
        return [event.kind for event in self.all(EventRecord)]


@pytest.fixture
def world() -> Judged:
    world = Judged()
    world.arrive(10)
    world.arrive(20)
    return world


def test_other_documents_begin_an_era_and_the_newest_window_is_searched_again(world) -> None:
    world.conclude()
    world.arrive(30)
    world.arrive(40)
    newest = world.conclude()
    world.arrive(50)  # no window ends here
    run = world.change(held_out="other")
    assert (run.era, run.held_out, run.run.era.tests) == (2, "other", 0)
    assert run.run.era.held_out == Digest.of_bytes(b"other")
    again = world.studies()[-1]
    assert (again.era, again.checkpoints, again.held_out) == (2, newest.checkpoints, "other")
    [event] = [event for event in world.all(EventRecord) if event.kind == "era-begun"]
    assert event.data["era"] == 2
    assert (event.data["before"], event.data["held_out"]) == ("default", "other")
    opened = [event for event in world.all(EventRecord) if event.kind == "study-opened"][-1]
    assert opened.data["skipped"] == 0


def test_the_study_that_goes_on_ends_with_its_documents(world) -> None:
    [going] = world.studies()
    world.conductor.advance(going.id)
    leased = world.lease()
    world.change(held_out="other")
    ended, begun = world.studies()
    assert ended.state is StudyState.CANCELLED
    assert "'other'" in (ended.stopped or "")
    assert begun.state is StudyState.SEARCHING
    assert {record.task.state for record in world.all(TaskRecord)} == {TaskState.CANCELLED}
    assert leased is not None
    assert world.kinds()[-3:] == ["study-cancelled", "era-begun", "study-opened"]


def test_the_best_stays_and_is_no_longer_shown_by_numbers_of_other_documents(world) -> None:
    world.conclude()
    before = world.best()
    world.change(held_out="other")
    after = world.best()
    assert (after.artifact, after.promoted, after.era) == (before.artifact, True, 1)
    assert before.score is not None
    assert before.gains
    assert (after.score, after.gains, after.baselines) == (None, [], {})
    assert "not measured yet" in after.reason
    assert after.certificate == before.certificate, "it names the documents it was made on"


def test_alpha_restarts_and_the_best_is_measured_as_a_rival_that_stays_unless_beaten(
    world,
) -> None:
    first = world.conclude()
    world.change(held_out="other")
    world.loss = lambda weights: 1.0 + loss(weights)
    second = world.conclude()
    assert second.verdict is not None
    assert second.verdict.best is None, "it is exactly as good as the merge of era 1"
    test = second.verdict.certificates[0]
    assert (test.test, test.alpha) == (1, alpha(1))
    assert "current best" in {gain.against for gain in test.gains}
    best = world.best()
    assert first.verdict is not None
    assert (best.artifact, best.study, best.era) == (first.verdict.best, first.id, 1)
    assert best.score is not None
    assert best.score.mean == pytest.approx(3.0, abs=0.05), "measured on the new documents"
    assert "nothing was shown better" in best.reason


def test_what_beats_the_old_best_on_the_new_documents_takes_its_place(world) -> None:
    first = world.conclude()
    world.arrive(30)
    world.arrive(40)
    world.loss = lambda weights: 3.0 if len(weights.values) == 2 else loss(weights)
    world.change(held_out="other")
    second = world.conclude()
    assert second.verdict is not None
    assert second.verdict.before == (first.verdict and first.verdict.best)
    assert second.verdict.before_score is not None
    assert second.verdict.before_score.interval.mean == pytest.approx(3.0, abs=0.05)
    best = world.best()
    assert (best.artifact, best.era) == (second.verdict.best, 2)
    assert {gain.against for gain in best.gains} >= {"newest", "current best"}


def test_before_a_study_of_the_new_era_the_newest_checkpoint_has_no_numbers(world) -> None:
    world.loss = lambda w: 2.0 + (1 - w.values[-1]) ** 2  # nothing is promoted
    world.conclude()
    assert world.best().score is not None
    world.change(held_out="other")
    best = world.best()
    assert (best.kind, best.step, best.score) == ("checkpoint", 20, None)
    assert "era 2" in best.reason


def test_the_same_documents_by_another_name_begin_no_era(world) -> None:
    world.conclude()
    run = world.change(held_out="copy")
    assert (run.era, run.held_out) == (1, "copy")
    assert "era-begun" not in world.kinds()
    assert world.best().score is not None


def test_settings_that_are_there_already_change_nothing(world) -> None:
    world.conclude()
    with world.store.write() as unit:  # a study is due, and a change would open it
        run = unit.update(replace(world.run, considered=0))
    events = world.all(EventRecord)
    same = {"held_out": "default", "window": run.window, "study": dict(run.study)}
    assert world.change(**same, retention=run.retention) == run
    assert world.all(EventRecord) == events


def test_a_run_that_comes_back_to_documents_goes_on_counting_its_tests(world) -> None:
    world.conclude()
    assert world.run.run.era.tests == 1
    world.change(held_out="other")
    run = world.change(held_out="default")
    assert (run.era, run.run.era.tests) == (3, 1)
    world.loss = lambda w: loss(w) if len(w.values) == 2 else loss(w) - 1.0
    world.arrive(30)
    world.arrive(40)
    world.conclude()
    assert [record.number for record in world.all(AlphaRecord)][:2] == [1, 2]


def test_a_study_that_ended_with_its_era_spends_no_alpha_and_leaves_no_merge(world) -> None:
    [study] = world.studies()
    while True:
        world.conductor.advance(study.id)
        record = world.lease()
        if record is not None:
            world.finish(record, world.work(record.task))
            if record.task.kind is TaskKind.MATERIALISE:
                break
    with world.store.read() as snapshot:
        stored = load_study(snapshot, study.id)
    world.change(held_out="other")
    with pytest.raises(WaitingError):
        conclude(world.conductor.desk, stored)
    assert world.all(ArtifactRecord) == []
    assert world.all(AlphaRecord) == []
    assert world.run.run.era.tests == 0


def test_an_artifact_written_before_its_era_ended_is_not_tested_after(world) -> None:
    [study] = world.studies()
    while not world.all(ArtifactRecord):
        world.conductor.advance(study.id)
        record = world.lease()
        if record is not None:
            world.finish(record, world.work(record.task))
    with world.store.write() as unit:
        for made in unit.find(AlphaRecord):
            unit.delete(AlphaRecord, made.id)
    with world.store.read() as snapshot:
        stored = load_study(snapshot, study.id)
    world.change(held_out="other")
    with pytest.raises(WaitingError):
        conclude(world.conductor.desk, stored)
    assert world.all(AlphaRecord) == []
    assert world.run.run.era.tests == 0


def test_settings_apply_to_the_studies_opened_from_now_on(world) -> None:
    world.change(study={"budget": 9}, retention=Retention(keep_last=3))
    assert world.studies()[0].spec.budget == 12
    world.conclude()
    world.change(window=WindowPolicy(size=4, every=1, minimum=2))
    world.arrive(30)
    assert world.studies()[-1].spec.budget == 9
    assert world.run.retention == Retention(keep_last=3)


def test_a_window_that_is_due_by_the_new_settings_is_opened_at_once(world) -> None:
    world.conclude()
    world.arrive(30)
    assert len(world.studies()) == 1
    world.change(window=WindowPolicy(size=4, every=1, minimum=2))
    assert len(world.studies()) == 2


def test_settings_that_cannot_search_a_window_that_is_due_change_nothing(world) -> None:
    world.conclude()
    before = world.run
    with pytest.raises(InvalidInputError, match="budget of 2"):
        world.change(held_out="other", study={"budget": 2})
    assert world.run == before
    assert "era-begun" not in world.kinds()


def test_documents_that_are_not_there_are_said_to_be_missing(world) -> None:
    with pytest.raises(MissingError, match="held-out set 'none'"):
        world.change(held_out="none")
