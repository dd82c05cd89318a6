"""Checkpoints as JSON."""

from typing import Annotated, Literal

from pydantic import Field

from ckptmerge.wire import examples
from ckptmerge.wire.resource import File, FileRef, Resource, RunName, Sha256, shown

Step = Annotated[int, Field(ge=0, le=2**53)]


class NewCheckpoint(Resource):
    """A checkpoint to register: blobs that were uploaded before, or a path the service may read."""

    model_config = shown(
        examples.NEW_CHECKPOINT,
        examples.NEW_CHECKPOINT_FROM_SOURCE,
        one_of=("files", "source"),
    )

    step: Step
    tokens: Annotated[int, Field(ge=0)] | None = None
    files: Annotated[list[FileRef], Field(min_length=1, max_length=10_000)] | None = None
    source: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    in_place: bool = False
    """Whether the weights of a source stay where they are and are not copied. Their size and time
    are looked at whenever they are used, and their digest when they are loaded: a file that has
    changed, or gone, is lost to the run."""


class CheckpointResource(Resource):
    """A registered checkpoint."""

    model_config = shown(examples.CHECKPOINT)

    id: str
    run: RunName
    attempt: int
    step: int
    tokens: int | None
    digest: Sha256
    """Identity of exactly these files."""
    content: Sha256
    """Identity of the tensors, however they are sharded; what recipes name."""
    state: Literal["complete", "incomplete", "removed"]
    missing: list[str]
    """What a model needs beside its weights and neither the checkpoint nor the run brings."""
    pinned: bool = False
    """Whether it stays, whatever the run's retention says."""
    removed: str | None = None
    """When its bytes were given up; the same bytes sent again bring it back."""
    superseded_by: str | None = None
    """Id of the checkpoint that has taken its place at its step; studies and merges that were made
    of this one still name it."""
    in_place: bool = False
    """Whether its weights lie where the trainer wrote them."""
    parameters: int
    bytes: int
    created: str
    files: list[File]


class CheckpointPage(Resource):
    """Checkpoints of a run, oldest first."""

    model_config = shown(examples.CHECKPOINTS)

    items: list[CheckpointResource]
    next: str | None
