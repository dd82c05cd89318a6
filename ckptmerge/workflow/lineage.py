"""Where merges came from, what showed them better, and what took whose place."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ckptmerge.domain.recipe import Recipe
from ckptmerge.storage.records import (
    AlphaRecord,
    ArtifactRecord,
    CheckpointRecord,
    HeldOutRecord,
    RunRecord,
    StudyRecord,
    Verdict,
)
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire.best import Weight
from ckptmerge.wire.lineage import (
    ArtifactResource,
    Decision,
    Lineage,
    LineageEdge,
    LineageNode,
    TestMade,
)
from ckptmerge.workflow.answers import files_of, timestamp
from ckptmerge.workflow.pin import served
from ckptmerge.workflow.stored import require

Parents = list[tuple[CheckpointRecord, float]]
"""Checkpoints and their weights, oldest first."""


def artifact_resource(snapshot: Snapshot, record: ArtifactRecord) -> ArtifactResource:
    """Describe a merge."""
    run = require(snapshot, RunRecord, record.run, "run")
    return ArtifactResource(
        id=record.id,
        run=record.run,
        study=record.study,
        promoted=record.promoted,
        best=served(run) == record.id,
        digest=str(record.manifest.digest),
        weights=[
            Weight(checkpoint=c.id, attempt=c.attempt, step=c.step, weight=weight)
            for c, weight in parents_of(snapshot, record)
        ],
        recipe=recipe_of(snapshot, record).as_json(),
        pinned=record.pinned,
        removed=None if record.removed is None else timestamp(record.removed),
        created=timestamp(record.created),
        files=files_of(record.manifest, f"/v1/artifacts/{record.id}/files"),
    )


def recipe_of(snapshot: Snapshot, record: ArtifactRecord) -> Recipe:
    """Return what rebuilds a merge."""
    contents = tuple(parent.manifest.content for parent, _ in parents_of(snapshot, record))
    return Recipe(contents, record.weights, record.dtype)


def parents_of(snapshot: Snapshot, record: ArtifactRecord) -> Parents:
    """Return the checkpoints of a merge with their weights."""
    study = require(snapshot, StudyRecord, record.study, "study")
    window = [require(snapshot, CheckpointRecord, c, "checkpoint") for c in study.checkpoints]
    return list(zip(window, record.weights.values, strict=True))


def lineage_of_run(snapshot: Snapshot, run: RunRecord) -> Lineage:
    """Show everything that has ever been promoted of a run, and what is pinned now."""
    graph = _Graph(snapshot, run)
    for _, verdict in graph.promotions:
        graph.add(verdict.best)
        graph.supersede(verdict)
    graph.add(served(run))
    return graph.drawn()


def lineage_of_artifact(snapshot: Snapshot, record: ArtifactRecord) -> Lineage:
    """Show a merge, its parents, what it superseded and what superseded it."""
    graph = _Graph(snapshot, require(snapshot, RunRecord, record.run, "run"))
    near = [v for _, v in graph.promotions if record.id in {v.best, v.before}]
    for verdict in near:
        graph.add(verdict.before, parents=verdict.before == record.id)
        graph.add(verdict.best, parents=verdict.best == record.id)
        graph.supersede(verdict)
    return graph.drawn()


@dataclass
class _Graph:
    """Nodes and edges, as they come together."""

    snapshot: Snapshot
    run: RunRecord
    nodes: dict[str, LineageNode] = field(default_factory=dict[str, LineageNode])
    edges: list[LineageEdge] = field(default_factory=list[LineageEdge])
    promotions: list[tuple[StudyRecord, Verdict]] = field(init=False)
    """Every study that made something best, with its verdict, in that order."""

    def __post_init__(self) -> None:
        self.promotions = list(_promotions(self.snapshot, self.run))

    def add(self, key: str | None, *, parents: bool = True) -> None:
        """Add what goes by an id, and where asked for what it was merged from; once each."""
        if key is None or key in self.nodes:
            return
        merge = self.snapshot.get(ArtifactRecord, key)
        if merge is None:
            checkpoint = require(self.snapshot, CheckpointRecord, key, "checkpoint")
            self.nodes[key] = self._checkpoint(checkpoint)
            return
        weighed = parents_of(self.snapshot, merge)
        for parent, weight in weighed if parents else ():
            self.add(parent.id)
            self.edges.append(
                LineageEdge(source=parent.id, target=key, kind="parent", weight=weight)
            )
        self.nodes[key] = self._merge(merge, weighed[-1][0])

    def supersede(self, verdict: Verdict) -> None:
        """Say that what a verdict made best took the place of what was best before."""
        if verdict.best is not None and verdict.before is not None:
            edge = LineageEdge(
                source=verdict.best, target=verdict.before, kind="superseded", weight=None
            )
            self.edges.append(edge)

    def drawn(self) -> Lineage:
        """Return all of it."""
        return Lineage(run=self.run.name, nodes=list(self.nodes.values()), edges=self.edges)

    def _checkpoint(self, record: CheckpointRecord) -> LineageNode:
        return LineageNode(
            id=record.id,
            kind="checkpoint",
            attempt=record.attempt,
            step=record.step,
            tokens=record.tokens,
            digest=str(record.manifest.digest),
            content=str(record.manifest.content),
            best=served(self.run) == record.id,
            removed=record.removed is not None,
            decision=self._decision(record.id),
        )

    def _merge(self, record: ArtifactRecord, newest: CheckpointRecord) -> LineageNode:
        return LineageNode(
            id=record.id,
            kind="merge",
            attempt=newest.attempt,
            step=newest.step,
            tokens=newest.tokens,
            digest=str(record.manifest.digest),
            content=None,
            best=served(self.run) == record.id,
            removed=record.removed is not None,
            decision=self._decision(record.id),
        )

    def _decision(self, key: str) -> Decision | None:
        """Say which study made it best, and by which tests."""
        found = [(s, verdict) for s, verdict in self.promotions if verdict.best == key]
        if not found:
            return None
        study, verdict = found[-1]
        spent = self.snapshot.find(AlphaRecord, run=self.run.name, era=study.era)
        ids = {record.number: record.id for record in spent}
        held_out = require(self.snapshot, HeldOutRecord, study.held_out, "held-out set")
        return Decision(
            study=study.id,
            era=study.era,
            held_out=str(held_out.digest),
            reason=verdict.reason,
            tests=[
                TestMade(
                    id=ids.get(certificate.test),
                    test=certificate.test,
                    subject=certificate.subject,
                    passed=certificate.passed,
                    alpha=certificate.alpha,
                    p=certificate.p,
                )
                for certificate in verdict.certificates
            ],
        )


def _promotions(snapshot: Snapshot, run: RunRecord) -> Iterator[tuple[StudyRecord, Verdict]]:
    """Yield the studies that made something best; one goes on at a time, so in that order."""
    for study in snapshot.find(StudyRecord, run=run.name, state="decided"):
        if study.verdict is not None and study.verdict.best is not None:
            yield study, study.verdict
