"""Runs and held-out sets as JSON."""

from dataclasses import asdict

from pydantic import ConfigDict, Field

from ckptmerge.config.study import ObjectiveSpec, StudySpec
from ckptmerge.domain.retention import Retention
from ckptmerge.wire import examples
from ckptmerge.wire.resource import FileName, Resource, RunName, Sha256, Strict, shown


class WindowPolicySpec(Resource):
    """Which checkpoints a study is opened over, and how often."""

    size: int = Field(default=8, ge=2, le=64)
    every: int = Field(default=1, ge=1)
    """Open a study after so many new checkpoints."""
    minimum: int = Field(default=2, ge=2)


class RetentionSpec(Resource):
    """Which checkpoints and merges keep their bytes; a rule that is left out lets nothing go."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"keep_last": 8, "keep_every": 10000, "keep_best": 3}]}
    )

    keep_last: int | None = Field(default=None, ge=1, le=2**53)
    """So many of the newest checkpoints stay."""
    keep_every: int | None = Field(default=None, ge=1, le=2**53)
    """Checkpoints whose step it divides stay."""
    keep_best: int | None = Field(default=None, ge=1, le=2**53)
    """So many of the newest promoted merges keep their bytes."""
    ttl: int | None = Field(default=None, ge=1, le=2**53)
    """Checkpoints that arrived within so many seconds stay."""
    quota: int | None = Field(default=None, ge=1, le=2**53)
    """So many bytes the run may hold: beyond it the oldest go that only a rule keeps."""

    @classmethod
    def of(cls, retention: Retention) -> "RetentionSpec":
        """Write a policy as JSON."""
        return cls(**asdict(retention))

    def retention(self) -> Retention:
        """Return the policy that this says."""
        return Retention(**self.model_dump())


class NewObjectiveSpec(Strict, ObjectiveSpec):
    """What to minimise, as JSON asks for it."""


class NewStudySpec(Strict, StudySpec):
    """How to search, as JSON asks for it.

    A study file may hold 1e-3, which is text to YAML; JSON has numbers for numbers.
    """

    model_config = shown(examples.STUDY_SPEC)

    # A narrower type is sound: nothing can be assigned to it.
    objective: NewObjectiveSpec = NewObjectiveSpec()  # pyright: ignore[reportIncompatibleVariableOverride]


class NewRun(Resource):
    """A run to make; whatever is left out is the service's default."""

    model_config = shown(examples.NEW_RUN)

    name: RunName
    held_out: str | None = None
    """Name of the held-out set that judges the run."""
    study: NewStudySpec | None = None
    window: WindowPolicySpec | None = None
    retention: RetentionSpec | None = None


class RunChange(Resource):
    """Other settings for a run; whatever is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"held_out": "web-2026", "study": {"budget": 32}, "window": {"every": 4}}]
        }
    )

    held_out: str | None = None
    """Name of the held-out set that judges the run; other documents begin a new era."""
    study: NewStudySpec | None = None
    window: WindowPolicySpec | None = None
    retention: RetentionSpec | None = None


class RunResource(Resource):
    """A pretraining run."""

    model_config = shown(examples.RUN)

    name: RunName
    held_out: str
    held_out_digest: Sha256
    era: int
    """Counts the held-out sets the run has been judged on."""
    attempt: int
    checkpoints: int
    study: StudySpec
    window: WindowPolicySpec
    retention: RetentionSpec = RetentionSpec()
    files: dict[FileName, Sha256]
    """Side files that checkpoints without their own take from the run."""
    created: str


class RunPage(Resource):
    """Runs by name."""

    model_config = shown(examples.RUNS)

    items: list[RunResource]
    next: str | None


class HeldOutSetResource(Resource):
    """Documents that runs are judged on."""

    model_config = shown(examples.HELD_OUT_SET)

    name: str
    digest: Sha256
    """Of the documents, whatever their order in the file."""
    file: Sha256
    documents: int
    splits: dict[str, dict[str, dict[str, int]]]
    """By split and domain: documents, and independent units among them."""
