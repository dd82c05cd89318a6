"""Merge weights: one number a checkpoint, or one a checkpoint and group of tensors."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ckptmerge.errors import InvalidWeightsError

SUM_TOLERANCE = 1e-9
"""How far from one the sum of merge weights may lie; they are float64."""


@dataclass(frozen=True, slots=True)
class MergeWeights:
    """One number a checkpoint, oldest first, summing to one.

    Negative numbers and numbers above one are legal: they extrapolate.

    Raises:
        InvalidWeightsError: none, not finite, or their sum is not one to 1e-9.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise InvalidWeightsError("merge weights need at least one number")
        if not all(math.isfinite(value) for value in self.values):
            raise InvalidWeightsError(f"merge weights must be finite: {list(self.values)}")
        total = math.fsum(self.values)
        if abs(total - 1) > SUM_TOLERANCE:
            raise InvalidWeightsError(
                f"merge weights must sum to 1, these sum to {total!r}: {list(self.values)}"
            )

    @classmethod
    def of(cls, *values: float) -> Self:
        """Take the numbers as they are given, oldest checkpoint first."""
        return cls(tuple(float(value) for value in values))

    @classmethod
    def normalised(cls, values: Sequence[float]) -> Self:
        """Take numbers that sum to one but for rounding, and remove the rounding.

        Raises:
            InvalidWeightsError: the sum is off by more than rounding explains (1e-6).
        """
        total = math.fsum(values)
        if not math.isfinite(total) or abs(total - 1) > 1e-6:
            raise InvalidWeightsError(f"merge weights must sum to 1, these sum to {total!r}")
        return cls(tuple(float(value) / total for value in values))

    @classmethod
    def vertex(cls, size: int, index: int) -> Self:
        """Put everything on one checkpoint; negative indices count from the newest."""
        values = [0.0] * size
        values[index] = 1.0
        return cls(tuple(values))

    @classmethod
    def uniform(cls, size: int, last: int | None = None) -> Self:
        """Average the ``last`` checkpoints (all of them by default) equally."""
        last = size if last is None else last
        if not 1 <= last <= size:
            raise InvalidWeightsError(f"cannot average the last {last} of {size} checkpoints")
        return cls((0.0,) * (size - last) + (1 / last,) * last)

    def __len__(self) -> int:
        return len(self.values)

    def for_tensor(self, name: str) -> "MergeWeights":  # noqa: ARG002 - the groups' form needs it
        """Return the weights of one tensor: here, the same for all."""
        return self


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """Merge weights for the tensors whose whole name matches a regular expression."""

    name: str
    pattern: str
    weights: MergeWeights

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise InvalidWeightsError(
                f"group {self.name!r}: {self.pattern!r} is no regular expression: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class GroupedWeights:
    """Merge weights by group; the first group that matches a tensor's name decides.

    Raises:
        InvalidWeightsError: no groups, one name twice, or groups for different numbers of
            checkpoints.
    """

    groups: tuple[WeightGroup, ...]

    def __post_init__(self) -> None:
        if not self.groups:
            raise InvalidWeightsError("grouped merge weights need at least one group")
        if len({group.name for group in self.groups}) != len(self.groups):
            raise InvalidWeightsError("two groups of merge weights have the same name")
        if len({len(group.weights) for group in self.groups}) != 1:
            raise InvalidWeightsError("all groups must weigh the same number of checkpoints")

    def __len__(self) -> int:
        return len(self.groups[0].weights)

    def for_tensor(self, name: str) -> MergeWeights:
        """Return the weights of one tensor.

        Raises:
            InvalidWeightsError: no group matches the name.
        """
        for group in self.groups:
            if re.fullmatch(group.pattern, name):
                return group.weights
        raise InvalidWeightsError(
            f"no group matches tensor {name!r}; end the groups with a pattern '.*'"
        )


Weights = MergeWeights | GroupedWeights
