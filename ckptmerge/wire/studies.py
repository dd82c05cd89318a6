"""Studies and trials as JSON."""

from typing import Literal

from ckptmerge.wire.best import Certificate, Gain, Passes, Score
from ckptmerge.wire.resource import Resource


class TrialResource(Resource):
    """One candidate of a study."""

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
    reused: bool
    """Whether an earlier study had measured it already; then it cost no pass."""
    worker: str | None
    attempts: int
    seconds: dict[str, float]


class TrialPage(Resource):
    """Trials in the order in which they were proposed."""

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

    items: list[StudyResource]
    next: str | None


class StudyChange(Resource):
    """What may be asked of a study."""

    state: Literal["cancelled"]


class EventResource(Resource):
    """Something that happened."""

    id: str
    run: str
    kind: str
    data: dict[str, object]
    at: str
