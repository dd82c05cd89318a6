"""What may be asked of a surrogate, and what it believes: both as one line of JSON.

A line that asks for a posterior is told from one that asks for a proposal by its keys. No torch
here: the process that asks need not load it.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import InvalidInputError
from ckptmerge.proposal.lines import (
    fields_of,
    float_of,
    floats_of,
    integer_of,
    list_of,
    one_line,
    parsed,
)
from ckptmerge.proposal.request import ProposalRequest, request_from_fields

Landmark = Literal["oldest", "newest", "incumbent", "uniform"]
"""Weights that have a name in every window."""


@dataclass(frozen=True, slots=True)
class PosteriorRequest:
    """Asks what is believed about the loss, given what was observed.

    Raises:
        InvalidInputError: a candidate weighs another number of checkpoints than the space, or lies
            outside it: there is no reason to believe what is said about places nobody searches.
    """

    study: ProposalRequest
    """All that is known; with its seed and index it also fixes the next candidate."""
    candidates: tuple[MergeWeights, ...] = ()
    """What to predict beside the observations."""

    def __post_init__(self) -> None:
        space = self.study.space
        for weights in self.candidates:
            if len(weights) != space.size:
                raise InvalidInputError(
                    f"a candidate weighs {len(weights)} checkpoints, the window has {space.size}"
                )
            if not space.holds(weights):
                raise InvalidInputError(
                    f"candidate {list(weights.values)} lies outside the search space; oldest "
                    f"first, the weights lie between {list(space.lower)} and {list(space.upper)}"
                )

    def as_json(self) -> str:
        """Write the request as one line; `posterior_request_from_fields` reads it back equal."""
        return one_line(
            posterior=self.study.as_fields(),
            candidates=[list(weights.values) for weights in self.candidates],
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is believed about one merge, in bits per byte on the documents of the search split.

    The deviations say how little the surrogate knows, not how other documents would differ.

    Raises:
        InvalidInputError: a number is not finite.
    """

    weights: MergeWeights
    mean: float
    """Expected loss; lower is better."""
    sd: float
    gain: float
    """Expected loss of the newest checkpoint less that of this merge; positive is better."""
    gain_sd: float

    def __post_init__(self) -> None:
        numbers = (self.mean, self.sd, self.gain, self.gain_sd)
        if not all(map(math.isfinite, numbers)):
            raise InvalidInputError(f"the surrogate's numbers overflow: {numbers}")


@dataclass(frozen=True, slots=True)
class Slice:
    """A straight line through the search space: the picture to draw."""

    begin: Landmark
    """What lies at 0."""
    end: Landmark
    """What lies at 1."""
    at: tuple[float, ...]
    """How far along each point lies."""
    points: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True)
class Posterior:
    """What the surrogate believes about a study's losses."""

    observed: tuple[Prediction, ...]
    """In the order of the request's observations."""
    incumbent: int
    """Index into them of the lowest expected loss."""
    expected_improvement: float
    """How much better than the incumbent the next candidate is expected to be."""
    floor: float | None
    """The improvement below which a search stops, since these documents could not tell it apart;
    None where the observations carry no replicates."""
    line: Slice
    candidates: tuple[Prediction, ...]
    """Those that the request names, in its order."""

    def as_json(self) -> str:
        """Write the posterior as one line; `posterior_from_json` reads it back equal."""
        return one_line(
            observed=[_point_fields(point) for point in self.observed],
            incumbent=self.incumbent,
            expected_improvement=self.expected_improvement,
            floor=self.floor,
            line={
                "begin": self.line.begin,
                "end": self.line.end,
                "at": list(self.line.at),
                "points": [_point_fields(point) for point in self.line.points],
            },
            candidates=[_point_fields(point) for point in self.candidates],
        )


def asks_for_posterior(value: object) -> bool:
    """Say whether a line's JSON asks for a posterior rather than for a proposal."""
    return isinstance(value, dict) and "posterior" in value


def posterior_request_from_fields(value: object) -> PosteriorRequest:
    """Read the JSON of what `PosteriorRequest.as_json` wrote.

    Raises:
        InvalidInputError: a key is missing or unknown, or a value has the wrong type.
    """
    fields = fields_of(value, "posterior request", ("posterior", "candidates"))
    return PosteriorRequest(
        study=request_from_fields(fields["posterior"]),
        candidates=tuple(
            MergeWeights(floats_of(weights, "candidates"))
            for weights in list_of(fields["candidates"], "candidates")
        ),
    )


def posterior_from_json(text: str) -> Posterior:
    """Read what `Posterior.as_json` wrote.

    Raises:
        InvalidInputError: the text is no JSON, a key is missing, unknown or stands twice, or a
            value has the wrong type.
    """
    keys = ("observed", "incumbent", "expected_improvement", "floor", "line", "candidates")
    fields = fields_of(parsed(text), "posterior", keys)
    return Posterior(
        observed=_points(fields["observed"], "observed"),
        incumbent=integer_of(fields["incumbent"], "incumbent"),
        expected_improvement=float_of(fields["expected_improvement"], "expected_improvement"),
        floor=None if fields["floor"] is None else float_of(fields["floor"], "floor"),
        line=_slice(fields["line"]),
        candidates=_points(fields["candidates"], "candidates"),
    )


def _slice(value: object) -> Slice:
    """Read a slice."""
    fields = fields_of(value, "line", ("begin", "end", "at", "points"))
    for key in ("begin", "end"):
        if fields[key] not in get_args(Landmark):
            raise InvalidInputError(f"line.{key}: unknown landmark {fields[key]!r}")
    return Slice(
        begin=fields["begin"],
        end=fields["end"],
        at=floats_of(fields["at"], "line.at"),
        points=_points(fields["points"], "line.points"),
    )


def _points(value: object, name: str) -> tuple[Prediction, ...]:
    """Read a list of predictions."""
    return tuple(_point(item, name) for item in list_of(value, name))


def _point(value: object, name: str) -> Prediction:
    """Read a prediction."""
    fields = fields_of(value, name, ("weights", "mean", "sd", "gain", "gain_sd"))
    return Prediction(
        weights=MergeWeights(floats_of(fields["weights"], f"{name}.weights")),
        mean=float_of(fields["mean"], f"{name}.mean"),
        sd=float_of(fields["sd"], f"{name}.sd"),
        gain=float_of(fields["gain"], f"{name}.gain"),
        gain_sd=float_of(fields["gain_sd"], f"{name}.gain_sd"),
    )


def _point_fields(point: Prediction) -> dict[str, object]:
    """Return a prediction as JSON values."""
    return {
        "weights": list(point.weights.values),
        "mean": point.mean,
        "sd": point.sd,
        "gain": point.gain,
        "gain_sd": point.gain_sd,
    }
