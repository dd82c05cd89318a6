"""Search space: which merge weights a study may propose."""

import math
from dataclasses import dataclass
from typing import Literal, Self

from ckptmerge.domain.weights import SUM_TOLERANCE, MergeWeights
from ckptmerge.errors import InvalidInputError

SpaceKind = Literal["pair", "simplex"]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """A polytope: weights that sum to one, each within its own bounds.

    Raises:
        InvalidInputError: fewer than two checkpoints, bounds that do not pair up, or bounds that
            leave no interior.
    """

    kind: SpaceKind
    lower: tuple[float, ...]
    """Smallest weight of each checkpoint, oldest first."""
    upper: tuple[float, ...]
    """Largest weight of each checkpoint, oldest first."""

    def __post_init__(self) -> None:
        if len(self.lower) != len(self.upper):
            raise InvalidInputError(
                f"{len(self.lower)} lower bounds and {len(self.upper)} upper ones: give one each"
            )
        bounds = list(zip(self.lower, self.upper, strict=True))
        if len(bounds) < 2:
            raise InvalidInputError("a search space needs at least two checkpoints")
        if not all(math.isfinite(low) and math.isfinite(high) and low < high
                   for low, high in bounds):  # fmt: skip
            raise InvalidInputError(f"each lower bound must lie below its upper bound: {bounds}")
        if not math.fsum(self.lower) < 1 < math.fsum(self.upper):
            raise InvalidInputError(f"no weights within {bounds} sum to one")

    @classmethod
    def pair(cls, lower: float = -0.25, upper: float = 1.5) -> Self:
        """Bound the weight λ of the newer of two checkpoints; the older has 1 - λ."""
        return cls("pair", (1 - upper, lower), (1 - lower, upper))

    @classmethod
    def simplex(cls, size: int, lower: float = 0.0, upper: float = 1.0) -> Self:
        """Bound each of ``size`` weights alike; a negative ``lower`` allows extrapolation."""
        return cls("simplex", (lower,) * size, (upper,) * size)

    @property
    def size(self) -> int:
        """How many checkpoints the space weighs."""
        return len(self.lower)

    @property
    def dimension(self) -> int:
        """How many numbers are free: one less than there are checkpoints."""
        return self.size - 1

    def holds(self, weights: MergeWeights) -> bool:
        """Say whether the weights lie within the bounds, up to rounding."""
        return len(weights) == self.size and all(
            low - SUM_TOLERANCE <= value <= high + SUM_TOLERANCE
            for low, value, high in zip(self.lower, weights.values, self.upper, strict=True)
        )
