"""What a proposer is asked and what it answers, and both as one line of JSON.

The proposer is a pure function of the request, so a stored request replays bit for bit. Floats are
written in their shortest form that reads back to the same float64. No torch here: the process that
asks need not load it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import InvalidInputError


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
        return _one_line(
            space=space,
            observations=observations,
            pending=[list(weights.values) for weights in self.pending],
            seed=self.seed,
            index=self.index,
        )


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
        return _one_line(
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
    fields = _fields(
        _parsed(text), "request", ("space", "observations", "pending", "seed", "index")
    )
    return ProposalRequest(
        space=_space(fields["space"]),
        observations=tuple(map(_observed, _list(fields["observations"], "observations"))),
        pending=tuple(
            MergeWeights(_floats(values, "pending"))
            for values in _list(fields["pending"], "pending")
        ),
        seed=_integer(fields["seed"], "seed"),
        index=_integer(fields["index"], "index"),
    )


def proposal_from_json(text: str) -> Proposal:
    """Read what `Proposal.as_json` wrote.

    Raises:
        InvalidInputError: the text is no JSON, a key is missing, unknown or stands twice, or a
            value has the wrong type.
    """
    keys = ("weights", "incumbent", "expected_improvement", "floor", "stop", "fallback")
    fields = _fields(_parsed(text), "proposal", keys)
    return Proposal(
        weights=MergeWeights(_floats(fields["weights"], "weights")),
        incumbent=_integer(fields["incumbent"], "incumbent"),
        expected_improvement=_float(fields["expected_improvement"], "expected_improvement"),
        floor=_float(fields["floor"], "floor"),
        stop=_optional_text(fields["stop"], "stop"),
        fallback=_optional_text(fields["fallback"], "fallback"),
    )


def _space(value: object) -> SearchSpace:
    """Read a search space."""
    fields = _fields(value, "space", ("kind", "lower", "upper"))
    if fields["kind"] not in {"pair", "simplex"}:
        raise InvalidInputError(f"space.kind: unknown kind {fields['kind']!r}")
    lower, upper = _floats(fields["lower"], "space.lower"), _floats(fields["upper"], "space.upper")
    if len(lower) != len(upper):
        raise InvalidInputError(f"space: {len(lower)} lower bounds for {len(upper)} upper bounds")
    return SearchSpace(fields["kind"], lower, upper)


def _observed(value: object) -> ObservedPoint:
    """Read one observation."""
    fields = _fields(value, "observation", ("weights", "value", "variance", "replicates"))
    return ObservedPoint(
        weights=MergeWeights(_floats(fields["weights"], "observation.weights")),
        value=_float(fields["value"], "observation.value"),
        variance=_float(fields["variance"], "observation.variance"),
        replicates=_floats(fields["replicates"], "observation.replicates"),
    )


def _one_line(**fields: object) -> str:
    """Write JSON without a line break; Python writes floats in their shortest exact form."""
    return json.dumps(fields, allow_nan=False, separators=(",", ":"))


def _parsed(text: str) -> object:
    """Parse JSON, refusing what its standard leaves open: repeated keys and non-finite numbers."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"not one line of JSON: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a key that stands twice."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidInputError(f"a key stands twice in {[key for key, _ in pairs]}")
    return fields


def _refuse_constant(name: str) -> float:
    """Refuse NaN and infinities, which are no JSON."""
    raise InvalidInputError(f"numbers must be finite, not {name}")


def _fields(value: object, name: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """Return an object that has exactly these keys."""
    if not isinstance(value, dict) or set(value) != set(keys):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise InvalidInputError(f"{name}: expected the keys {sorted(keys)}, found {found}")
    return value


def _list(value: object, name: str) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise InvalidInputError(f"{name}: expected a list, found {type(value).__name__}")
    return value


def _floats(value: object, name: str) -> tuple[float, ...]:
    """Return a list of numbers as a tuple."""
    return tuple(_float(item, name) for item in _list(value, name))


def _float(value: object, name: str) -> float:
    """Return a number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"{name}: expected a number, found {value!r}")
    return float(value)


def _integer(value: object, name: str) -> int:
    """Return an integer; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(f"{name}: expected an integer, found {value!r}")
    return value


def _optional_text(value: object, name: str) -> str | None:
    """Return a text or None."""
    if value is not None and not isinstance(value, str):
        raise InvalidInputError(f"{name}: expected a text or null, found {value!r}")
    return value
