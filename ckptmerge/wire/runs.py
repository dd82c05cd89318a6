"""Runs and held-out sets as JSON."""

from pydantic import Field

from ckptmerge.config.study import StudySpec
from ckptmerge.wire.resource import FileName, Resource, RunName, Sha256


class WindowPolicySpec(Resource):
    """Which checkpoints a study is opened over, and how often."""

    size: int = Field(default=8, ge=2, le=64)
    every: int = Field(default=1, ge=1)
    """Open a study after so many new checkpoints."""
    minimum: int = Field(default=2, ge=2)


class NewRun(Resource):
    """A run to make; whatever is left out is the service's default."""

    name: RunName
    held_out: str | None = None
    """Name of the held-out set that judges the run."""
    study: StudySpec | None = None
    window: WindowPolicySpec | None = None


class RunResource(Resource):
    """A pretraining run."""

    name: RunName
    held_out: str
    held_out_digest: Sha256
    era: int
    """Counts the held-out sets the run has been judged on."""
    attempt: int
    checkpoints: int
    study: StudySpec
    window: WindowPolicySpec
    files: dict[FileName, Sha256]
    """Side files that checkpoints without their own take from the run."""
    created: str


class RunPage(Resource):
    """Runs by name."""

    items: list[RunResource]
    next: str | None


class HeldOutSetResource(Resource):
    """Documents that runs are judged on."""

    name: str
    digest: Sha256
    """Of the documents, whatever their order in the file."""
    file: Sha256
    documents: int
    splits: dict[str, dict[str, dict[str, int]]]
    """By split and domain: documents, and independent units among them."""
