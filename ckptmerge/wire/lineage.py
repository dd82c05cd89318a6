"""Merges, and what they came from, as JSON: nodes and edges that a graph can be drawn from."""

from typing import Literal

from ckptmerge.wire import examples
from ckptmerge.wire.best import Weight
from ckptmerge.wire.resource import File, Resource, RunName, Sha256, shown

_BEST = examples.BEST
_OLDER, _NEWER = _BEST["weights"]

_ARTIFACT: examples.Example = {
    "id": _BEST["artifact"],
    "promoted": True,
    "best": True,
    **{key: _BEST[key] for key in ("run", "study", "digest", "weights", "files")},
    "recipe": examples.RECIPE,
    "pinned": False,
    "removed": None,
    "created": "2026-07-01T12:40:00.000Z",
}

_CHECKPOINT_NODE: examples.Example = {
    "id": _OLDER["checkpoint"],
    "kind": "checkpoint",
    "attempt": 1,
    "step": 1550,
    "tokens": 3_174_400_000,
    "digest": examples.CHECKPOINT["digest"],
    "content": examples.RECIPE["parents"][0],
    "best": False,
    "removed": False,
    "decision": None,
}

_TEST: examples.Example = {
    "id": "e_01KWETJ2Q0VXH3M4YB7W8N5RCD",
    **{key: examples.CERTIFICATE[key] for key in ("test", "subject", "passed", "alpha", "p")},
}

_DECISION: examples.Example = {
    "study": _BEST["study"],
    "era": 1,
    "held_out": examples.CERTIFICATE["held_out"],
    "reason": _BEST["reason"],
    "tests": [_TEST],
}

_MERGE_NODE: examples.Example = {
    "id": _BEST["artifact"],
    "kind": "merge",
    "attempt": 1,
    "step": 1600,
    "tokens": 3_276_800_000,
    "digest": _BEST["digest"],
    "content": None,
    "best": True,
    "removed": False,
    "decision": _DECISION,
}

_EDGE: examples.Example = {
    "source": _OLDER["checkpoint"],
    "target": _BEST["artifact"],
    "kind": "parent",
    "weight": _OLDER["weight"],
}

_LINEAGE: examples.Example = {
    "run": _BEST["run"],
    "nodes": [_CHECKPOINT_NODE, _MERGE_NODE],
    "edges": [_EDGE],
}


class ArtifactResource(Resource):
    """A merge that was promoted."""

    model_config = shown(_ARTIFACT)

    id: str
    run: RunName
    study: str
    """Whose decision promoted it."""
    promoted: bool
    best: bool
    """Whether it is what the run serves now."""
    digest: Sha256
    """Identity of exactly these files."""
    weights: list[Weight]
    recipe: dict[str, object]
    """Enough to rebuild the bytes."""
    pinned: bool
    """Whether it stays, whatever the run's retention says."""
    removed: str | None
    """When its bytes were given up; the recipe stays."""
    created: str
    files: list[File]


class TestMade(Resource):
    """One test of a decision; the study's certificate has its numbers."""

    model_config = shown(_TEST)

    id: str | None
    """Of the record that it spent its alpha."""
    test: int
    """Its number within the run's era."""
    subject: str
    passed: bool
    alpha: float
    p: float


class Decision(Resource):
    """What made something the best of its run."""

    model_config = shown(_DECISION)

    study: str
    era: int
    held_out: Sha256
    """The documents that judged it."""
    reason: str
    tests: list[TestMade]


class LineageNode(Resource):
    """A checkpoint or a merge."""

    model_config = shown(_CHECKPOINT_NODE, _MERGE_NODE)

    id: str
    kind: Literal["checkpoint", "merge"]
    attempt: int
    step: int
    """Of a merge: of its newest parent."""
    tokens: int | None
    digest: Sha256
    """Identity of the files."""
    content: Sha256 | None
    """Of a checkpoint: identity of its tensors, which recipes name."""
    best: bool
    """Whether it is what the run serves now."""
    removed: bool
    """Whether its bytes were given up."""
    decision: Decision | None
    """The last that made it best; null for what only went into a merge."""


class LineageEdge(Resource):
    """How two nodes hang together: the source is a parent of the target, or superseded it."""

    model_config = shown(_EDGE)

    source: str
    target: str
    kind: Literal["parent", "superseded"]
    weight: float | None
    """Of a parent in the merge."""


class Lineage(Resource):
    """What a run's best weights were made of, and what took whose place."""

    model_config = shown(_LINEAGE)

    run: RunName
    nodes: list[LineageNode]
    """What became best, in the order in which it did, each after its parents."""
    edges: list[LineageEdge]
