"""A study conducted over a store: the whole of it, and everything that can go wrong on the way.

The worker is a function here: a loss that is known exactly, on documents that differ. What is real
is everything else, from the arrival of checkpoints to the verdict.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest
from safetensors.numpy import save

from ckptmerge.domain.certificate import alpha
from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.run import Era, Run
from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import Outcome, Task, TaskKind, TaskState
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import ProposerError, StepExistsError
from ckptmerge.evaluation.documents import Document, HeldOutSet
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.proposal.request import Proposal, ProposalRequest
from ckptmerge.storage.blobs import put
from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from ckptmerge.storage.records import (
    AlphaRecord,
    ArtifactRecord,
    CheckpointRecord,
    EventRecord,
    HeldOutRecord,
    RunRecord,
    StudyRecord,
    TaskRecord,
    WindowPolicy,
)
from ckptmerge.workflow.admit import Admission, admit
from ckptmerge.workflow.answers import best_of
from ckptmerge.workflow.conduct import Conductor
from ckptmerge.workflow.desk import Desk
from ckptmerge.workflow.open_studies import open_due
from ckptmerge.workflow.stored import load_study
from ckptmerge.workflow.tasks import finish_lease, lease_task, reap

DOCUMENTS = HeldOutSet(
    tuple(
        Document(text=f"document {n} of {domain}", domain=domain)
        for domain in ("code", "prose")
        for n in range(200)
    )
)
OPTIMUM = 0.6
"""Best weight of the newer half of a window; the farther from it, the higher the loss."""


def loss(weights: MergeWeights) -> float:
    """Bits per byte of a merge: a parabola in the share of the newest checkpoint."""
    return 2.0 + 0.5 * (weights.values[-1] - OPTIMUM) ** 2


def barrier(weights: MergeWeights) -> float:
    """Bits per byte where two unrelated models are averaged."""
    return 2.0 + 4.0 * weights.values[0] * weights.values[-1]


def scores(value: float, split: Split) -> DocumentScores:
    """Documents whose losses differ, by the same amounts for every model."""
    documents = DOCUMENTS.split(split).documents
    spread = np.random.default_rng(0).normal(0, 0.3, len(documents))
    own = np.random.default_rng(round(value * 1e6)).normal(0, 1e-4, len(documents))
    sizes = np.full(len(documents), 100)
    nats = (value + spread + own) * sizes * np.log(2)
    return DocumentScores.of(documents, nats=nats, bytes=sizes, tokens=sizes // 4)


def propose(request: ProposalRequest) -> Proposal:
    """Try the optimum, then stop."""
    size = request.space.size
    best = MergeWeights.normalised([(1 - OPTIMUM) / (size - 1)] * (size - 1) + [OPTIMUM])
    values = [point.value for point in request.observations]
    known = any(point.weights == best for point in request.observations)
    return Proposal(
        weights=best, incumbent=int(np.argmin(values)), expected_improvement=0.0, floor=0.0,
        stop="nothing is left to find" if known else None,
    )  # fmt: skip


@dataclass
class World:
    """A service without its doors, and a worker that knows the loss."""

    store: MemoryStore = field(default_factory=MemoryStore)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)
    loss: Callable[[MergeWeights], float] = loss
    proposer: Callable[[ProposalRequest], Proposal] = propose
    width: int = 1
    ids: count = field(default_factory=count)
    clock: float = 0.0

    def __post_init__(self) -> None:
        with self.store.write() as unit:
            file = FileEntry("h", 1, Digest.of_bytes(b"h"))
            unit.insert(
                HeldOutRecord(name="default", digest=DOCUMENTS.digest, file=file, created=0)
            )
            unit.insert(
                RunRecord(
                    name="run", run=Run("run", Era(DOCUMENTS.digest)), held_out="default",
                    study={"budget": 12}, window=WindowPolicy(size=4, every=2, minimum=2),
                    created=0,
                )
            )  # fmt: skip

    def new_id(self, kind: str) -> str:
        return f"{kind}_{next(self.ids):05}"

    @property
    def conductor(self) -> Conductor:
        """A new one each time: it keeps nothing between steps."""
        desk = Desk(self.store, self.blobs, lambda: 0.0, self.new_id)
        return Conductor(desk, self.proposer, lambda: self.width)

    def arrive(self, step: int, **changes) -> Admission:
        """Admit a checkpoint; ``value`` decides its bytes."""
        value = changes.pop("value", step)
        content = {
            "model.safetensors": save({"w": np.full(8, value, np.float32)}),
            "config.json": b"{}",
            "tokenizer.json": b"{}",
        }
        for name in changes.pop("without", ()):
            del content[name]
        files = [
            FileEntry(name, len(data), put(self.blobs, data)) for name, data in content.items()
        ]
        return admit(
            self.store, self.blobs, run="run", step=step, tokens=None, files=files, now=0.0,
            new_id=self.new_id, **changes,
        )  # fmt: skip

    def studies(self) -> list[StudyRecord]:
        with self.store.read() as snapshot:
            return snapshot.find(StudyRecord)

    def all(self, kind):
        with self.store.read() as snapshot:
            return snapshot.find(kind)

    def lease(self, worker: str = "w") -> TaskRecord | None:
        with self.store.write() as unit:
            return lease_task(unit, worker, list(TaskKind), clock=self.clock, ttl=60)

    def finish(self, record: TaskRecord, outcome: Outcome) -> None:
        with self.store.write() as unit:
            finish_lease(unit, record.id, record.task.fence, outcome)

    def work(self, task: Task) -> Outcome:
        """Do a task as a worker would."""
        order = task.order
        if task.kind is TaskKind.MATERIALISE:
            data = save({"w": np.array(order.weights.values, np.float32)})
            files = [FileEntry("model.safetensors", len(data), put(self.blobs, data))]
            return Outcome(status="ok", files=tuple(files))
        weights = order.weights or self.weights_of(order.subject)
        value = self.loss(weights)
        if not np.isfinite(value):
            return Outcome(status="infeasible", reason="the loss is not finite")
        digest = put(self.blobs, scores(value, order.split).to_bytes())
        return Outcome(status="ok", scores=digest, repeated=digest if order.repeat else None)

    def weights_of(self, subject: str) -> MergeWeights:
        with self.store.read() as snapshot:
            artifact = snapshot.get(ArtifactRecord, subject)
            if artifact is not None:
                return artifact.weights
            study = snapshot.find(StudyRecord)[-1]
        place = study.checkpoints.index(subject)
        return MergeWeights.vertex(len(study.checkpoints), place)

    def conclude(self, *, kill: bool = False) -> StudyRecord:
        """Advance and work until the newest study is over."""
        for _ in range(1000):
            study = self.studies()[-1]
            if study.state not in {StudyState.SEARCHING, StudyState.FROZEN}:
                return study
            moved = self.conductor.advance(study.id)
            record = self.lease()
            if record is not None and kill and record.task.fence == 1:
                self.clock += 61
                with self.store.write() as unit:
                    assert [r.id for r in reap(unit, clock=self.clock)] == [record.id]
            elif record is not None:
                self.finish(record, self.work(record.task))
            elif not moved:
                pytest.fail(f"nothing moves any more: {study.state}")
        raise AssertionError("it never ends")


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
