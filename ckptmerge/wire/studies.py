"""Studies and trials as JSON."""

from typing import Annotated, Literal

from pydantic import Field

from ckptmerge.wire import examples
from ckptmerge.wire.best import Certificate, Gain, Passes, Score
from ckptmerge.wire.checkpoints import Step
from ckptmerge.wire.leases import FailureName
from ckptmerge.wire.resource import Resource, RunName, shown
from ckptmerge.wire.runs import NewStudySpec

_BY_STEPS: examples.Example = {
    "run": examples.RUN["name"],
    "steps": examples.STUDY["steps"],
    "study": {"budget": 12},
}
_NEWEST: examples.Example = {"run": examples.RUN["name"], "window": 8}

_TESTS: examples.Example = {
    "study": examples.STUDY["id"],
    **{key: examples.STUDY[key] for key in ("run", "era")},
    **{key: examples.STUDY["verdict"][key] for key in ("promoted", "artifact", "reason", "tests")},
}


class TrialResource(Resource):
    """One candidate of a study."""

    model_config = shown(examples.TRIAL)

    trial: int
    name: str | None
    """The baseline that it is; null for a candidate that was proposed."""
    weights: list[float]
    state: Literal["pending", "observed", "infeasible", "failed"]
    value: float | None
    """Bits per byte on the search split; lower is better."""
    standard_error: float | None
    """Of the value, were the same documents scored again."""
    reason: str | None
    """Why the last attempt came to nothing, or why the candidate is infeasible."""
    code: FailureName | None = None
    """The same, in one word for programs."""
    log: str | None = None
    """The last that was heard of the worker whose attempt came to nothing."""
    reused: bool
    """Whether an earlier study had measured it already; then it cost no pass."""
    worker: str | None
    attempts: int
    seconds: dict[str, float]


class TrialPage(Resource):
    """Trials in the order in which they were proposed."""

    model_config = shown(examples.TRIALS)

    items: list[TrialResource]
    next: str | None


class VerdictResource(Resource):
    """What a study came to."""

    promoted: bool
    artifact: str | None
    reason: str
    tests: list[Certificate]
    score: Score | None
    baselines: dict[str, Score]
    gains: list[Gain]
    better_than_uniform: Gain | None
    passes: Passes


class StudyResource(Resource):
    """The search over one window."""

    model_config = shown(examples.STUDY)

    id: str
    run: str
    era: int
    state: Literal["searching", "frozen", "decided", "refused", "cancelled"]
    stopped: str | None
    """Why the search ended."""
    checkpoints: list[str]
    steps: list[int]
    space: Literal["pair", "simplex"]
    lower: list[float]
    upper: list[float]
    budget: int
    seed: int
    dtype: Literal["keep", "bf16", "f16", "f32"]
    trials: int
    observed: int
    winner: int | None
    verdict: VerdictResource | None
    created: str


class StudyPage(Resource):
    """Studies, newest first."""

    model_config = shown(examples.STUDIES)

    items: list[StudyResource]
    next: str | None


class NewStudy(Resource):
    """A study to open by hand, over checkpoints of one attempt of a run.

    Exactly one of ``steps``, ``checkpoints`` and ``window`` says which.
    """

    model_config = shown(_BY_STEPS, _NEWEST)

    run: RunName
    steps: Annotated[list[Step], Field(max_length=64)] | None = None
    """Oldest first, of the latest attempt that has them all."""
    checkpoints: Annotated[list[str], Field(max_length=64)] | None = None
    """Ids, oldest first."""
    window: Annotated[int, Field(ge=2, le=64)] | None = None
    """So many of the newest complete checkpoints."""
    study: NewStudySpec | None = None
    """How to search; what is left out is as the run says."""


class StudyTests(Resource):
    """Every test that a study came to, passed or not: the evidence for its verdict."""

    model_config = shown(_TESTS)

    study: str
    run: RunName
    era: int
    promoted: bool
    artifact: str | None
    """What became the run's best: a merge, or the newest checkpoint; null where nothing did."""
    reason: str
    tests: list[Certificate]
    """In the order in which they were made."""


class StudyChange(Resource):
    """What may be asked of a study."""

    model_config = shown(examples.STUDY_CHANGE)

    state: Literal["cancelled"]


class EventResource(Resource):
    """Something that happened."""

    model_config = shown(examples.EVENT)

    id: str
    run: str
    kind: str
    data: dict[str, object]
    at: str
