"""A study conducted over a store: the whole of it, and everything that can go wrong on the way.

The worker is a function here: a loss that is known exactly, on documents that differ. What is real
is everything else, from the arrival of checkpoints to the verdict.
"""

import json

import pytest

from ckptmerge.domain.certificate import alpha
from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import Outcome, TaskState
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import (
    DiskFailedError,
    OutOfSpaceError,
    ProposerError,
    StepExistsError,
)
from ckptmerge.proposal.request import Proposal, ProposalRequest
from ckptmerge.storage.blobs import put
from ckptmerge.storage.records import (
    AlphaRecord,
    ArtifactRecord,
    CheckpointRecord,
    EventRecord,
    RunRecord,
    StudyRecord,
    TaskRecord,
)
from ckptmerge.workflow.admit import complete
from ckptmerge.workflow.best import best_of
from ckptmerge.workflow.open_studies import open_due
from ckptmerge.workflow.stored import load_study
from tests.unit.workflow.conducted import OPTIMUM, World, barrier, loss, propose


@pytest.fixture
def world() -> World:
    return World()


def test_no_study_opens_before_it_is_due(world: World) -> None:
    world.arrive(10)
    assert world.studies() == []
    world.arrive(20)
    assert [len(study.checkpoints) for study in world.studies()] == [2]
    world.arrive(30)
    world.arrive(40)
    assert len(world.studies()) == 1, "one study of a run at a time"


def test_a_study_ends_with_the_better_merge_as_best(world: World) -> None:
    world.arrive(10)
    world.arrive(20)
    study = world.conclude()
    assert study.state is StudyState.DECIDED
    assert study.verdict is not None
    assert study.verdict.weights is not None
    assert study.verdict.weights.values[-1] == pytest.approx(OPTIMUM)
    assert study.stopped == "nothing is left to find"
    [certificate] = study.verdict.certificates
    assert certificate.passed
    assert certificate.alpha == alpha(1)
    with world.store.read() as snapshot:
        run = snapshot.get(RunRecord, "run")
        assert run is not None
        best = best_of(snapshot, run)
    assert best is not None
    assert (best.promoted, best.kind, best.study) == (True, "merge", study.id)
    assert best.gains[0].mean == pytest.approx(loss(MergeWeights.of(0, 1)) - 2.0, abs=1e-3)
    kinds = [event.kind for event in world.all(EventRecord)]
    assert kinds[0] == "checkpoint-registered"
    assert kinds[-1] == "best-promoted"


def test_workers_that_die_on_every_task_once_change_nothing(world: World) -> None:
    undisturbed = World()
    for each in (world, undisturbed):
        each.arrive(10)
        each.arrive(20)
    disturbed, calm = world.conclude(kill=True), undisturbed.conclude()
    assert disturbed.verdict is not None
    assert calm.verdict is not None
    assert disturbed.verdict.weights == calm.verdict.weights
    assert disturbed.verdict.certificates == calm.verdict.certificates
    assert disturbed.verdict.passes == calm.verdict.passes
    assert all(record.task.fence == 2 for record in world.all(TaskRecord))
    assert len(world.all(AlphaRecord)) == 1


def test_a_task_that_nobody_can_do_ends_the_study_with_the_reason(world: World) -> None:
    world.arrive(10)
    world.arrive(20)
    while world.conductor.advance(world.studies()[0].id):
        pass
    for _ in range(3):
        record = world.lease()
        assert record is not None
        assert record.baseline == "newest"
        world.finish(record, Outcome(status="failed", reason="out of memory"))
    assert any(not record.task.over for record in world.all(TaskRecord))
    study = world.conclude()
    assert study.state is StudyState.REFUSED
    assert "out of memory" in (study.stopped or "")
    assert all(record.task.over for record in world.all(TaskRecord))


def test_an_infeasible_candidate_is_no_observation_and_stops_nothing(world: World) -> None:
    world.loss = lambda w: float("nan") if w.values == (0.5, 0.5) else loss(w)
    world.arrive(10)
    world.arrive(20)
    study = world.conclude()
    assert study.state is StudyState.DECIDED
    with world.store.read() as snapshot:
        states = [trial.state for trial in load_study(snapshot, study.id).study.trials]
    assert states.count("infeasible") == 1


def test_unrelated_checkpoints_are_refused_and_the_newest_stays_best(world: World) -> None:
    world.loss = barrier
    world.arrive(10)
    world.arrive(20)
    study = world.conclude()
    assert study.state is StudyState.REFUSED
    assert "these do not merge" in (study.stopped or "")
    with world.store.read() as snapshot:
        run = snapshot.get(RunRecord, "run")
        assert run is not None
        best = best_of(snapshot, run)
    assert best is not None
    assert (best.kind, best.step, best.promoted) == ("checkpoint", 20, False)


def test_nothing_is_promoted_where_no_merge_is_better(world: World) -> None:
    world.loss = lambda w: 2.0 + (1 - w.values[-1]) ** 2
    world.arrive(10)
    world.arrive(20)
    study = world.conclude()
    assert study.state is StudyState.DECIDED
    assert study.verdict is not None
    assert study.verdict.best is None
    assert "nothing promoted" in study.verdict.reason
    assert world.all(AlphaRecord) == [], "what the search contradicts spends no alpha"


def test_a_later_merge_must_also_beat_the_current_best(world: World) -> None:
    world.arrive(10)
    world.arrive(20)
    first = world.conclude()
    assert first.verdict is not None
    world.arrive(30)
    world.arrive(40)
    assert len(world.studies()) == 2
    second = world.conclude()
    assert second.verdict is not None
    tests = second.verdict.certificates
    assert [c.test for c in tests] == list(range(2, 2 + len(tests)))
    assert "current best" in {gain.against for gain in tests[0].gains}
    assert second.verdict.best is None, "it is exactly as good as the current best"
    with world.store.read() as snapshot:
        run = snapshot.get(RunRecord, "run")
    assert run is not None
    assert run.best == first.verdict.best


def test_training_that_overtakes_an_old_merge_takes_its_place(world: World) -> None:
    world.arrive(10)
    world.arrive(20)
    world.conclude()
    calm = world.loss
    old = world.all(ArtifactRecord)[0]

    def later(weights: MergeWeights) -> float:
        """Merging no longer helps, and the newest is far better than the old merge."""
        return calm(weights) if weights == old.weights else 1.0 + (1 - weights.values[-1]) ** 2

    world.loss = later
    world.arrive(30)
    world.arrive(40)
    second = world.conclude()
    assert second.verdict is not None
    newest = world.all(CheckpointRecord)[-1]
    assert second.verdict.best == newest.id
    assert [c.subject for c in second.verdict.certificates] == ["newest"]
    assert second.verdict.certificates[0].test == 2
    world.arrive(50)
    with world.store.read() as snapshot:
        run = snapshot.get(RunRecord, "run")
        assert run is not None
        best = best_of(snapshot, run)
    assert best is not None
    assert (best.kind, best.step, best.promoted) == ("checkpoint", 40, True)
    assert "beats the merge that was best" in best.reason


def test_a_proposer_that_fails_ends_the_study_and_the_next_one_may_do_better(
    world: World,
) -> None:
    def broken(_: ProposalRequest) -> Proposal:
        raise ProposerError("the proposer died twice")

    world.proposer = broken
    world.arrive(10)
    world.arrive(20)
    assert "died twice" in (world.conclude().stopped or "")
    world.proposer = propose
    world.arrive(30)
    world.arrive(40)
    assert world.conclude().state is StudyState.DECIDED


def test_several_workers_have_work_at_once(world: World) -> None:
    world.width = 3
    world.arrive(10)
    world.arrive(20)
    key = world.studies()[0].id
    while world.conductor.advance(key):
        pass
    leased = [record for n in range(3) if (record := world.lease(f"w{n}")) is not None]
    assert len({record.id for record in leased}) == 3
    for record in reversed(leased):
        world.finish(record, world.work(record.task))
    assert world.conclude().state is StudyState.DECIDED


def test_a_worker_that_did_not_hear_the_answer_gets_the_same_task_again(world: World) -> None:
    world.arrive(10)
    world.arrive(20)
    while world.conductor.advance(world.studies()[0].id):
        pass
    first, again, other = world.lease("a"), world.lease("a"), world.lease("b")
    assert first is not None
    assert again is not None
    assert other is not None
    assert (first.id, first.task.fence) == (again.id, again.task.fence)
    assert other.id != first.id


def test_a_cancelled_study_goes_no_further(world: World) -> None:
    from dataclasses import replace

    from ckptmerge.workflow.tasks import cancel_tasks

    world.arrive(10)
    world.arrive(20)
    study = world.studies()[0]
    world.conductor.advance(study.id)
    with world.store.write() as unit:
        unit.update(replace(study, state=StudyState.CANCELLED))
        cancel_tasks(unit, study.id)
    assert not world.conductor.advance(study.id)
    assert {record.task.state for record in world.all(TaskRecord)} == {TaskState.CANCELLED}


def test_a_study_that_is_cancelled_while_a_candidate_is_proposed_takes_none(world: World) -> None:
    from dataclasses import replace

    def slow(request: ProposalRequest) -> Proposal:
        with world.store.write() as unit:
            study = unit.find(StudyRecord)[-1]
            unit.update(replace(study, state=StudyState.CANCELLED))
        return propose(request)

    world.proposer = slow
    world.arrive(10)
    world.arrive(20)
    while world.studies()[0].state is StudyState.SEARCHING:
        world.conductor.advance(world.studies()[0].id)
        record = world.lease()
        if record is not None:
            world.finish(record, world.work(record.task))
    assert world.studies()[0].state is StudyState.CANCELLED
    assert all(record.baseline is not None for record in world.all(TaskRecord))


def test_the_same_checkpoint_again_is_the_same_record(world: World) -> None:
    first, again = world.arrive(10), world.arrive(10)
    assert first.new
    assert not again.new
    assert again.record == first.record
    assert len(world.all(CheckpointRecord)) == 1


def test_a_rollback_opens_a_new_attempt_with_windows_of_its_own(world: World) -> None:
    world.arrive(10)
    world.arrive(20)
    world.conclude()
    with pytest.raises(StepExistsError, match="attempt=next"):
        world.arrive(20, value=7)
    assert world.arrive(20, value=7, next_attempt=True).record.attempt == 2
    world.arrive(30)
    newest = world.studies()[-1]
    with world.store.read() as snapshot:
        window = [snapshot.get(CheckpointRecord, key) for key in newest.checkpoints]
    assert [(c.attempt, c.step) for c in window if c is not None] == [(2, 20), (2, 30)]


def test_a_checkpoint_without_a_configuration_enters_no_window(world: World) -> None:
    assert world.arrive(10, without=["config.json"]).record.missing == ("config.json",)
    world.arrive(20)
    assert world.studies() == []


def test_the_runs_files_make_a_checkpoint_complete(world: World) -> None:
    from dataclasses import replace

    with world.store.write() as unit:
        run = unit.get(RunRecord, "run")
        assert run is not None
        files = [
            FileEntry(n, 2, put(world.blobs, json.dumps({}).encode()))
            for n in ("config.json", "tokenizer.json")
        ]
        unit.update(replace(run, files=tuple(files)))
    record = world.arrive(10, without=["config.json", "tokenizer.json"]).record
    assert record.missing == ()
    assert {file.name for file in record.manifest.files} >= {"config.json", "tokenizer.json"}


def test_files_that_a_run_gets_later_complete_what_is_there(world: World) -> None:
    from dataclasses import replace

    names = ["config.json", "tokenizer.json"]
    for step in (10, 20):
        assert world.arrive(step, without=names).record.missing == ("config.json", "tokenizer")
    assert world.studies() == []
    with world.store.write() as unit:
        run = unit.get(RunRecord, "run")
        assert run is not None
        for name, left in zip(names, [0, 2], strict=True):
            file = FileEntry(name, 2, put(world.blobs, b"{}"))
            run = unit.update(replace(run, files=(*run.files, file)))
            assert len(complete(unit, world.blobs, run, now=0.0, new_id=world.new_id)) == left
    assert [len(study.checkpoints) for study in world.studies()] == [2]
    assert world.conclude().state is StudyState.DECIDED


def test_windows_that_were_skipped_are_counted(world: World) -> None:
    world.arrive(10)
    world.arrive(20)
    for step in (30, 40, 50, 60, 70, 80):
        world.arrive(step)
    world.conclude()
    with world.store.write() as unit:
        run = unit.get(RunRecord, "run")
        assert run is not None
        opened = open_due(unit, run, now=0.0, new_id=world.new_id)
    assert opened is not None
    data = [e.data for e in world.all(EventRecord) if e.kind == "study-opened"][-1]
    assert data["steps"] == [50, 60, 70, 80]
    assert data["skipped"] == 2


@pytest.mark.parametrize("error", [OutOfSpaceError("full"), DiskFailedError("failed")])
def test_a_bad_disk_ends_no_study(error: Exception) -> None:
    world = World()

    def failing(_request: ProposalRequest) -> Proposal:
        raise error

    world.arrive(10)
    world.arrive(20)
    world.proposer = failing
    with pytest.raises(type(error)):
        world.conclude()
    assert world.studies()[-1].state is StudyState.SEARCHING
    world.proposer = propose
    assert world.conclude().state is StudyState.DECIDED
