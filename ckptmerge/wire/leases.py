"""Leases and outcomes as JSON: what a worker is told, and what it answers."""

from typing import Annotated, Literal

from pydantic import Field

from ckptmerge.wire import examples
from ckptmerge.wire.resource import File, FileRef, Resource, Sha256, shown

TaskKindName = Literal["evaluate", "materialise", "certify"]

FailureName = Literal[
    "error", "oom", "cuda-oom", "killed", "crashed", "lost", "timeout", "unusable"
]


class LeaseRequest(Resource):
    """A worker asks for work."""

    model_config = shown(examples.LEASE_REQUEST)

    worker: Annotated[str, Field(min_length=1, max_length=200)]
    device: Annotated[str, Field(max_length=100)] = "cpu"
    kinds: Annotated[tuple[TaskKindName, ...], Field(strict=False)] = (
        "evaluate",
        "materialise",
        "certify",
    )
    wait: Annotated[float, Field(ge=0, le=30)] = 0.0
    """Seconds to wait for work before answering that there is none."""


class LeasedCheckpoint(Resource):
    """A checkpoint or artifact whose files a task needs."""

    id: str
    weight_index: int
    step: int
    content: Sha256
    files: list[File]


class LeasedSet(Resource):
    """The documents to score on."""

    digest: Sha256
    split: Literal["search", "certify", "audit"]
    file: File


class LeaseResource(Resource):
    """A task that is the worker's alone until the lease runs out."""

    model_config = shown(examples.LEASE)

    id: str
    fence: int
    """Must come back with every heartbeat and with the outcome."""
    expires_in: float
    """Seconds; renew at a third of it."""
    kind: TaskKindName
    study: str
    trial: int | None
    """Number of the candidate within its study."""
    checkpoints: list[LeasedCheckpoint]
    weights: list[float] | None
    dtype: Literal["keep", "bf16", "f16", "f32"]
    context: int | None
    held_out: LeasedSet | None
    repeat: bool = False
    """Whether to score twice, the second time with documents batched in another order."""


class Renewal(Resource):
    """A heartbeat."""

    model_config = shown(examples.RENEWAL)

    fence: int


class Renewed(Resource):
    """Its answer."""

    model_config = shown(examples.RENEWED)

    expires_in: float
    directive: Literal["continue", "cancel"]


class Seconds(Resource):
    """Where a worker's time went."""

    load: float = 0.0
    swap: float = 0.0
    score: float = 0.0


class Outcome(Resource):
    """What came of a task."""

    model_config = shown(examples.OUTCOME)

    fence: int
    status: Literal["ok", "infeasible", "failed"]
    reason: Annotated[str, Field(max_length=8192)] | None = None
    code: FailureName | None = None
    """What kind of failure the reason describes."""
    log: Annotated[str, Field(max_length=8192)] | None = None
    """The last that the worker said before it failed; kept without secrets."""
    scores: Sha256 | None = None
    """Blob of per-document scores."""
    repeated: Sha256 | None = None
    """The same again, where the lease asked for it."""
    files: list[FileRef] | None = None
    """Of a merge: its files, uploaded as blobs."""
    seconds: Seconds = Seconds()
    bytes_written: int = 0
