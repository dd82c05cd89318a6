"""Records: what the service remembers, each kind under its own key.

A record is a frozen dataclass of domain objects. ``KEY`` names the field that identifies it,
``INDEXED`` those by which it is looked up; everything else is read and written whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from ckptmerge.domain.audit_log import Entry
from ckptmerge.domain.certificate import Certificate, Gain, Score
from ckptmerge.domain.checkpoint import FileEntry, Manifest
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Observation
from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.retention import Retention
from ckptmerge.domain.run import Run
from ckptmerge.domain.study import StudySpec, StudyState
from ckptmerge.domain.task import Task
from ckptmerge.domain.token import Grant
from ckptmerge.domain.upload import Upload
from ckptmerge.domain.weights import MergeWeights


@dataclass(frozen=True, kw_only=True)
class BlobRecord:
    """A blob that was acknowledged: it must be there."""

    KEY: ClassVar[str] = "hex"
    INDEXED: ClassVar[tuple[str, ...]] = ()

    hex: str
    size: int
    created: float
    """When it last arrived, or was last named by a record that was made."""
    version: int = 0
    """Goes up each time: whoever looked before must look again."""
    lasting: bool = False
    """Whether it stays although no checkpoint or merge names it: scores of a study do."""


@dataclass(frozen=True, kw_only=True)
class HeldOutRecord:
    """A held-out set: the file it came as, and the digest of its documents."""

    KEY: ClassVar[str] = "name"
    INDEXED: ClassVar[tuple[str, ...]] = ()

    name: str
    digest: Digest
    """Of the documents, whatever their order."""
    file: FileEntry
    created: float


@dataclass(frozen=True, kw_only=True)
class WindowPolicy:
    """Which checkpoints a study is opened over, and how often."""

    size: int = 8
    every: int = 1
    minimum: int = 2


@dataclass(frozen=True, kw_only=True)
class Pin:
    """What a person has put in the place of the best, until somebody takes it away again."""

    subject: str
    """Id of the merge or checkpoint."""
    reason: str
    at: float


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, how its windows are searched, and what is best of it."""

    KEY: ClassVar[str] = "name"
    INDEXED: ClassVar[tuple[str, ...]] = ()

    name: str
    run: Run
    """Name and era; the era counts the tests made so far."""
    held_out: str
    """Name of the held-out set."""
    era: int = 1
    """Number of the era."""
    attempt: int = 1
    """Number of the attempt that new checkpoints belong to."""
    study: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """How to search, as the run's StudySpec says it."""
    window: WindowPolicy = field(default_factory=WindowPolicy)
    retention: Retention = field(default_factory=Retention)
    """Which checkpoints and merges keep their bytes."""
    files: tuple[FileEntry, ...] = ()
    """Side files for checkpoints that bring none."""
    best: str | None = None
    """Id of the promoted merge or checkpoint; None means the newest checkpoint."""
    promotion: str | None = None
    """Id of the study whose decision made it best."""
    pin: Pin | None = None
    """What is served in place of ``best``, which stays what it is meanwhile."""
    considered: int = 0
    """Complete checkpoints that there were when the last study was opened."""
    created: float


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """A registered checkpoint."""

    KEY: ClassVar[str] = "id"
    INDEXED: ClassVar[tuple[str, ...]] = ("run", "step")

    id: str
    run: str
    attempt: int
    step: int
    tokens: int | None
    manifest: Manifest
    """Of the files that make the model: its own, and those it takes from the run."""
    given: Digest
    """Identity of the files as they were sent."""
    missing: tuple[str, ...] = ()
    """What a model needs and was not there; such a checkpoint enters no window."""
    pinned: bool = False
    """Whether somebody has said that it stays."""
    removed: float | None = None
    """When its bytes were given up; the record stays, and enters no window."""
    superseded_by: str | None = None
    """Id of the checkpoint that has taken its place at its step; what named this one still does."""
    in_place: bool = False
    """Whether its weights lie where the trainer wrote them, and not among the blobs."""
    created: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a study came to: every test, and what the audit says."""

    best: str | None
    """Id of the promoted merge or checkpoint; None leaves the best as it was."""
    before: str | None = None
    """Id of what was best until then, where anything had been promoted."""
    before_score: Score | None = None
    """Its score on the study's audit split."""
    weights: MergeWeights | None
    reason: str
    certificates: tuple[Certificate, ...] = ()
    score: Score | None = None
    baselines: Mapping[str, Score] = field(default_factory=dict[str, Score])
    gains: tuple[Gain, ...] = ()
    better_than_uniform: Gain | None = None
    passes: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The request by which somebody opened a study by hand, to know it when it comes again."""

    key: str | None
    """Its Idempotency-Key, where it had one."""
    body: Digest
    """Of its body as canonical JSON."""


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study but for its trials, which are tasks."""

    KEY: ClassVar[str] = "id"
    INDEXED: ClassVar[tuple[str, ...]] = ("run", "state")
    # A verdict's interval need not be bounded, and JSON has no number for that: null, which is
    # written otherwise, would not read back.
    __pydantic_config__: ClassVar[dict[str, str]] = {"ser_json_inf_nan": "strings"}

    id: str
    run: str
    era: int
    held_out: str
    checkpoints: tuple[str, ...]
    """Ids of the window, oldest first."""
    spec: StudySpec
    context: int | None = None
    state: StudyState
    winner: int | None = None
    stopped: str | None = None
    verdict: Verdict | None = None
    opening: Opening | None = None
    """None where the window policy opened it."""
    ahead: str | None = None
    """Id of the run's newest checkpoint where it lies beyond the window of a run that has promoted
    nothing: it is the best so far, and a claim must beat it."""
    created: float


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """A task, and the trial it measures where it measures one."""

    KEY: ClassVar[str] = "id"
    INDEXED: ClassVar[tuple[str, ...]] = ("study", "state", "kind")

    id: str
    study: str
    state: str
    kind: str
    task: Task
    baseline: str | None = None
    """Name of the baseline that a trial's weights are."""
    observation: Observation | None = None
    """What the outcome's scores come to."""
    reused: bool = False
    """Whether the outcome was there already, from an earlier study; it cost no pass."""
    announced: bool = False
    """Whether an event has said that the task was given up."""
    created: float


@dataclass(frozen=True, kw_only=True)
class ScoresRecord:
    """Per-document scores of one model on one split, for whichever study asks next."""

    KEY: ClassVar[str] = "hex"
    INDEXED: ClassVar[tuple[str, ...]] = ()

    hex: str
    """Digest of all that they depend on."""
    scores: Digest
    repeated: Digest | None = None
    """The same model's again, its documents batched in another order."""
    created: float


@dataclass(frozen=True, kw_only=True)
class ArtifactRecord:
    """A merge that was written; visible once it was promoted."""

    KEY: ClassVar[str] = "id"
    INDEXED: ClassVar[tuple[str, ...]] = ("run", "study")

    id: str
    run: str
    study: str
    name: str
    """Of the claim it was written for."""
    weights: MergeWeights
    dtype: OutputDtype
    manifest: Manifest
    promoted: bool = False
    pinned: bool = False
    """Whether somebody has said that it stays."""
    removed: float | None = None
    """When its bytes were given up; the recipe stays."""
    created: float


@dataclass(frozen=True, kw_only=True)
class AlphaRecord:
    """One test on a certify split: it spends the era's next alpha."""

    KEY: ClassVar[str] = "id"
    INDEXED: ClassVar[tuple[str, ...]] = ("run", "era")

    id: str
    run: str
    era: int
    number: int
    subject: Digest
    rivals: tuple[Digest, ...]
    created: float


@dataclass(frozen=True, kw_only=True)
class UploadRecord:
    """An upload in pieces, and how far it has come: so many bytes are on disk for certain."""

    KEY: ClassVar[str] = "id"
    INDEXED: ClassVar[tuple[str, ...]] = ("state",)

    id: str
    """Not to be guessed: who knows it may append."""
    state: str
    upload: Upload
    key: str | None = None
    """Idempotency-Key of the request that began it."""
    created: float


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """Something that happened, in the order in which it did."""

    KEY: ClassVar[str] = "id"
    INDEXED: ClassVar[tuple[str, ...]] = ("run",)

    id: str
    """Sorts as events happened."""
    run: str
    kind: str
    data: Mapping[str, Any]
    created: float


@dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """A token that was given out; never its secret."""

    KEY: ClassVar[str] = "id"
    INDEXED: ClassVar[tuple[str, ...]] = ()

    id: str
    name: str
    """Who or what it was made for; of those that are good, one of each name."""
    grant: Grant
    used: float | None = None
    """When it was last used, to the hour."""
    created: float


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """An entry of the audit log; added, and never changed or deleted."""

    KEY: ClassVar[str] = "id"
    INDEXED: ClassVar[tuple[str, ...]] = ()

    id: str
    """The entry's number."""
    entry: Entry


RECORDS: Mapping[str, type[Any]] = {
    "blobs": BlobRecord,
    "held_out_sets": HeldOutRecord,
    "runs": RunRecord,
    "checkpoints": CheckpointRecord,
    "studies": StudyRecord,
    "tasks": TaskRecord,
    "scores": ScoresRecord,
    "artifacts": ArtifactRecord,
    "tests": AlphaRecord,
    "uploads": UploadRecord,
    "events": EventRecord,
    "tokens": TokenRecord,
    "audit": AuditRecord,
}
"""Every kind by the name of its table."""

TABLES: Mapping[type[Any], str] = {kind: name for name, kind in RECORDS.items()}

R = TypeVar(
    "R", BlobRecord, HeldOutRecord, RunRecord, CheckpointRecord, StudyRecord, TaskRecord,
    ScoresRecord, ArtifactRecord, AlphaRecord, UploadRecord, EventRecord, TokenRecord, AuditRecord,
)  # fmt: skip
