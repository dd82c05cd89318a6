"""What a proposer is asked and what it answers, and both as one line of JSON.

The proposer is a pure function of the request, so a stored request replays bit for bit. Floats are
written in their shortest form that reads back to the same float64. No torch here: the process that
asks need not load it.
"""

import math
from dataclasses import dataclass

from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import InvalidInputError
from ckptmerge.proposal.lines import (
    fields_of,
    float_of,
    floats_of,
    integer_of,
    list_of,
    one_line,
    optional_text_of,
    parsed,
)


@dataclass(frozen=True, slots=True)
class ObservedPoint:
    """A candidate and what measuring it gave, in bits per byte; lower is better.

    Raises:
        InvalidInputError: a number is not finite, or the variance is negative.
    """

    weights: MergeWeights
    value: float
    variance: float = 0.0
    """Variance of ``value`` were the same documents scored again (kernel noise alone)."""
    replicates: tuple[float, ...] = ()
    """``value`` on bootstrap resamples of the documents, the same resamples for every point."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, self.variance, *self.replicates))):
            raise InvalidInputError(
                f"an observation must be finite, not {self.value}; tell it as infeasible instead"
            )
        if self.variance < 0:
            raise InvalidInputError(f"a variance cannot be negative: {self.variance}")


@dataclass(frozen=True, slots=True)
class ProposalRequest:
    """Everything that a proposal depends on.

    Raises:
        InvalidInputError: a point weighs another number of checkpoints than the space, the points
            were resampled unequally often, or the seed or index is negative.
    """

    space: SearchSpace
    observations: tuple[ObservedPoint, ...]
    pending: tuple[MergeWeights, ...]
    seed: int
    index: int
    """Number of the trial that the proposal is for; with the seed it fixes all randomness."""

    def __post_init__(self) -> None:
        for weights in (*(point.weights for point in self.observations), *self.pending):
            if len(weights) != self.space.size:
                raise InvalidInputError(
                    f"a point weighs {len(weights)} checkpoints, the space {self.space.size}"
                )
        if len({len(point.replicates) for point in self.observations}) > 1:
            raise InvalidInputError("all observations of a study need equally many replicates")
        if self.seed < 0 or self.index < 0:
            raise InvalidInputError(
                f"seed and index must not be negative: {self.seed}, {self.index}"
            )

    def as_json(self) -> str:
        """Write the request as one line; `request_from_json` reads it back equal."""
        return one_line(**self.as_fields())

    def as_fields(self) -> dict[str, object]:
        """Return the request as JSON values; `request_from_fields` reads it back equal."""
        space = {
            "kind": self.space.kind,
            "lower": list(self.space.lower),
            "upper": list(self.space.upper),
        }
        observations = [
            {
                "weights": list(point.weights.values),
                "value": point.value,
                "variance": point.variance,
                "replicates": list(point.replicates),
            }
            for point in self.observations
        ]
        return {
            "space": space,
            "observations": observations,
            "pending": [list(weights.values) for weights in self.pending],
            "seed": self.seed,
            "index": self.index,
        }


@dataclass(frozen=True, slots=True)
class Proposal:
    """The next candidate, and what is believed about it; differences are in bits per byte."""

    weights: MergeWeights
    incumbent: int
    """Index into the request's observations of the lowest posterior mean."""
    expected_improvement: float
    """How much better than the incumbent the candidate is expected to be."""
    floor: float
    """How much worse than the true optimum, on fresh documents, the optimum found on these
    documents is expected to be; 0 where the observations carry no replicates."""
    stop: str | None = None
    """Why measuring the candidate is not worth a pass, or None while it is."""
    fallback: str | None = None
    """Why no model of the loss stands behind the candidate, or None where one does."""

    def as_json(self) -> str:
        """Write the proposal as one line; `proposal_from_json` reads it back equal."""
        return one_line(
            weights=list(self.weights.values),
            incumbent=self.incumbent,
            expected_improvement=self.expected_improvement,
            floor=self.floor,
            stop=self.stop,
            fallback=self.fallback,
        )


def request_from_json(text: str) -> ProposalRequest:
    """Read what `ProposalRequest.as_json` wrote.

    Raises:
        InvalidInputError: the text is no JSON, a key is missing, unknown or stands twice, or a
            value has the wrong type.
    """
    return request_from_fields(parsed(text))


def request_from_fields(value: object) -> ProposalRequest:
    """Read what `ProposalRequest.as_fields` returned; raises as `request_from_json` does."""
    fields = fields_of(value, "request", ("space", "observations", "pending", "seed", "index"))
    return ProposalRequest(
        space=_space(fields["space"]),
        observations=tuple(map(_observed, list_of(fields["observations"], "observations"))),
        pending=tuple(
            MergeWeights(floats_of(values, "pending"))
            for values in list_of(fields["pending"], "pending")
        ),
        seed=integer_of(fields["seed"], "seed"),
        index=integer_of(fields["index"], "index"),
    )


def proposal_from_json(text: str) -> Proposal:
    """Read what `Proposal.as_json` wrote.

    Raises:
        InvalidInputError: the text is no JSON, a key is missing, unknown or stands twice, or a
            value has the wrong type.
    """
    keys = ("weights", "incumbent", "expected_improvement", "floor", "stop", "fallback")
    fields = fields_of(parsed(text), "proposal", keys)
    return Proposal(
        weights=MergeWeights(floats_of(fields["weights"], "weights")),
        incumbent=integer_of(fields["incumbent"], "incumbent"),
        expected_improvement=float_of(fields["expected_improvement"], "expected_improvement"),
        floor=float_of(fields["floor"], "floor"),
        stop=optional_text_of(fields["stop"], "stop"),
        fallback=optional_text_of(fields["fallback"], "fallback"),
    )


def _space(value: object) -> SearchSpace:
    """Read a search space."""
    fields = fields_of(value, "space", ("kind", "lower", "upper"))
    if fields["kind"] not in {"pair", "simplex"}:
        raise InvalidInputError(f"space.kind: unknown kind {fields['kind']!r}")
    lower = floats_of(fields["lower"], "space.lower")
    upper = floats_of(fields["upper"], "space.upper")
    if len(lower) != len(upper):
        raise InvalidInputError(f"space: {len(lower)} lower bounds for {len(upper)} upper bounds")
    return SearchSpace(fields["kind"], lower, upper)


def _observed(value: object) -> ObservedPoint:
    """Read one observation."""
    fields = fields_of(value, "observation", ("weights", "value", "variance", "replicates"))
    return ObservedPoint(
        weights=MergeWeights(floats_of(fields["weights"], "observation.weights")),
        value=float_of(fields["value"], "observation.value"),
        variance=float_of(fields["variance"], "observation.variance"),
        replicates=floats_of(fields["replicates"], "observation.replicates"),
    )
