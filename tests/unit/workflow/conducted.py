"""A service without its doors, and a worker that knows the loss: for tests of conducting."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest
from safetensors.numpy import save

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.run import Era, Run
from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import Outcome, Task, TaskKind
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.evaluation.documents import Document, HeldOutSet
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.proposal.request import Proposal, ProposalRequest
from ckptmerge.storage.blobs import put
from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from ckptmerge.storage.records import (
    ArtifactRecord,
    HeldOutRecord,
    RunRecord,
    StudyRecord,
    TaskRecord,
    WindowPolicy,
)
from ckptmerge.workflow.admit import Admission, admit
from ckptmerge.workflow.conduct import Conductor
from ckptmerge.workflow.desk import Desk
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
    beyond: dict[str, float] = field(default_factory=dict)
    """Bits per byte of checkpoints outside the newest study's window."""

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
            finish_lease(unit, record.id, record.task.fence, outcome, now=0.0)

    def work(self, task: Task) -> Outcome:
        """Do a task as a worker would."""
        order = task.order
        if task.kind is TaskKind.MATERIALISE:
            data = save({"w": np.array(order.weights.values, np.float32)})
            files = [FileEntry("model.safetensors", len(data), put(self.blobs, data))]
            return Outcome(status="ok", files=tuple(files))
        if order.subject in self.beyond:
            value = self.beyond[order.subject]
        else:
            value = self.loss(order.weights or self.weights_of(order.subject))
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
            known = len(self.all(TaskRecord))
            moved = self.conductor.advance(study.id)
            assert moved or len(self.all(TaskRecord)) == known, "workers never hear of this task"
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
