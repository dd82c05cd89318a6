"""Checkpoints as JSON."""

from typing import Annotated, Literal

from pydantic import Field

from ckptmerge.wire.resource import File, FileRef, Resource, RunName, Sha256

Step = Annotated[int, Field(ge=0, le=2**53)]


class NewCheckpoint(Resource):
    """A checkpoint to register: blobs that were uploaded before, or a path the service may read."""

    step: Step
    tokens: Annotated[int, Field(ge=0)] | None = None
    files: Annotated[list[FileRef], Field(min_length=1, max_length=10_000)] | None = None
    source: Annotated[str, Field(min_length=1, max_length=4096)] | None = None


class CheckpointResource(Resource):
    """A registered checkpoint."""

    id: str
    run: RunName
    attempt: int
    step: int
    tokens: int | None
    digest: Sha256
    """Identity of exactly these files."""
    content: Sha256
    """Identity of the tensors, however they are sharded; what recipes name."""
    state: Literal["complete", "incomplete"]
    missing: list[str]
    """What a model needs beside its weights and neither the checkpoint nor the run brings."""
    parameters: int
    bytes: int
    created: str
    files: list[File]


class CheckpointPage(Resource):
    """Checkpoints of a run, oldest first."""

    items: list[CheckpointResource]
    next: str | None
