"""The best weights of a run: what `optimize --json` prints and GET …/best will answer."""

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ckptmerge.domain import certificate as domain
from ckptmerge.domain.observation import Split
from ckptmerge.wire import examples
from ckptmerge.wire.resource import File, Resource, Sha256, shown

Bound = float | None
"""An end of an interval; null where the documents do not bound it (a domain of one document)."""


SplitName = Annotated[Split, Field(strict=False)]
"""In JSON a split is its name."""


class DomainPart(Resource):
    """One domain's part of a score or gain."""

    mean: float
    low: Bound
    high: Bound
    documents: int
    too_few: bool
    """Fewer than thirty independent documents: shown, but nothing is claimed from it."""


class Score(Resource):
    """Bits per byte of one model on one split, with its interval."""

    model_config = shown(examples.SCORE)

    mean: float
    low: Bound
    high: Bound
    level: float
    unit: Literal["bits_per_byte"]
    split: SplitName
    documents: int
    domains: dict[str, DomainPart]

    @classmethod
    def of(cls, score: domain.Score) -> "Score":
        """Write a score as JSON."""
        return cls.model_validate({**_interval(score), "unit": score.unit})


class Gain(Resource):
    """Bits per byte better than ``against``, paired by document; positive is better."""

    model_config = shown(examples.GAIN)

    against: str
    mean: float
    low: Bound
    high: Bound
    p: float
    level: float
    unit: Literal["bits_per_byte"]
    split: SplitName
    documents: int
    domains: dict[str, DomainPart]

    @classmethod
    def of(cls, gain: domain.Gain) -> "Gain":
        """Write a gain as JSON."""
        return cls.model_validate(
            {**_interval(gain), "against": gain.against, "p": gain.p, "unit": gain.unit}
        )


class Certificate(Resource):
    """One test on the certify split."""

    model_config = shown(examples.CERTIFICATE)

    subject: str
    passed: bool
    alpha: float
    test: int
    """Number of the test within the run's era; it fixes alpha."""
    p: float
    split: Literal["certify"] = "certify"
    documents: int
    units: int
    held_out: Sha256
    artifact: Sha256 | None
    gains: list[Gain]
    worse_domains: list[str]

    @classmethod
    def of(cls, certificate: domain.Certificate) -> "Certificate":
        """Write a certificate as JSON."""
        return cls(
            subject=certificate.subject,
            passed=certificate.passed,
            alpha=certificate.alpha,
            test=certificate.test,
            p=certificate.p,
            documents=certificate.documents,
            units=certificate.units,
            held_out=str(certificate.held_out),
            artifact=str(certificate.artifact) if certificate.artifact else None,
            gains=[Gain.of(gain) for gain in certificate.gains],
            worse_domains=list(certificate.worse_domains),
        )


class Weight(Resource):
    """The weight of one checkpoint."""

    checkpoint: str
    attempt: int
    step: int
    weight: float


class Passes(Resource):
    """Forward passes spent: what the answer cost."""

    search: int
    certify: int
    audit: int


class Pinned(Resource):
    """Why and since when a person has put something in the place of the best."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"reason": "the new one repeats itself", "at": "2026-03-01T09:30:00.000Z"}]
        }
    )

    reason: str
    at: str


class NewPin(Resource):
    """What to put in the place of the best: a merge that was promoted once, or a checkpoint."""

    model_config = shown(
        {"artifact": "a_01JZ", "reason": "the new one repeats itself"},
        one_of=("artifact", "checkpoint"),
    )

    artifact: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    checkpoint: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    reason: Annotated[str, Field(min_length=1, max_length=1000)]


class Best(Resource):
    """The best weights of a run, and why they are.

    ``promoted`` is false until bytes were shown better on documents the search never saw; the best
    then is the newest checkpoint, and ``reason`` says why.
    """

    model_config = shown(examples.BEST)

    run: str
    kind: Literal["checkpoint", "merge"]
    promoted: bool
    reason: str
    pinned: Pinned | None = None
    """Set while a person has made it best by hand; then nothing is promoted."""
    artifact: str | None
    digest: Sha256
    step: int
    tokens: int | None
    study: str | None
    era: int | None = None
    """Era of the study. Scores and gains are of the run's present one, or are not given."""
    stopped: str
    """Why the search ended."""
    weights: list[Weight] | None
    groups: list[dict[str, object]] | None
    score: Score | None
    """Null until a study of the run's present era has measured it."""
    baselines: dict[str, Score]
    gains: list[Gain]
    better_than_uniform: Gain | None
    certificate: Certificate | None
    """The last test made; None when nothing was worth testing."""
    tests: list[Certificate]
    """Every test of this decision, in order."""
    passes: Passes | None
    files: list[File]


def _interval(value: domain.Score | domain.Gain) -> dict[str, object]:
    return {
        "mean": value.interval.mean,
        "low": _bound(value.interval.low),
        "high": _bound(value.interval.high),
        "level": value.interval.level,
        "split": value.split,
        "documents": value.documents,
        "domains": {
            name: DomainPart(
                mean=part.interval.mean, low=_bound(part.interval.low),
                high=_bound(part.interval.high), documents=part.documents, too_few=part.too_few,
            )
            for name, part in value.domains.items()
        },
    }  # fmt: skip


def _bound(value: float) -> Bound:
    return value if math.isfinite(value) else None
