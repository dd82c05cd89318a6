"""Geometry of a search space: coordinates of its plane, and the nearest legal weights.

| sign | meaning | shape |
|---|---|---|
| k, d | checkpoints; free dimensions, d = k - 1 | |
| c | merge weights, Σ c_j = 1, lower_j ≤ c_j ≤ upper_j: a convex polytope | k |
| B | orthonormal basis of the plane Σ v_j = 0 (Helmert) | k x d |
| x | coordinates, x = (c - 1/k) B: the uniform average is the origin | d |

The basis is orthonormal, so distances between coordinates are distances between weights. They are
not scaled by the bounds: how a loss bends does not depend on where a user fences the search.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights

_SNAP = 1e-12
"""Distance from a bound below which a weight is that bound: rounding, not a choice."""


class Geometry:
    """The polytope of a search space, in weights and in coordinates; float64 throughout."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.lower = torch.tensor(space.lower, dtype=torch.float64)
        self.upper = torch.tensor(space.upper, dtype=torch.float64)
        self.basis = helmert(space.size)

    def coordinates(self, weights: Float64[Tensor, "*n k"]) -> Float64[Tensor, "*n d"]:
        """Return the coordinates of weights that sum to one."""
        return (weights - 1 / self.space.size) @ self.basis

    def weights(self, coordinates: Float64[Tensor, "*n d"]) -> Float64[Tensor, "*n k"]:
        """Invert `coordinates`; the weights sum to one but may leave their bounds."""
        return 1 / self.space.size + coordinates @ self.basis.T

    def project(self, points: Float64[Tensor, "n k"]) -> Float64[Tensor, "n k"]:
        """Return the legal weights nearest to each point.

        The nearest point of a box-constrained simplex is clip(p - μ, lower, upper) for the one
        level μ at which it sums to one (the Karush-Kuhn-Tucker conditions). That sum is piecewise
        linear and falling in μ with corners at p - upper and p - lower, so μ follows exactly from
        the two corners between which the sum passes one.
        """
        corners = torch.cat([points - self.upper, points - self.lower], dim=-1).sort(-1).values
        sums = self._levelled(points.unsqueeze(-2), corners.unsqueeze(-1)).sum(-1)
        # Sums fall from Σ upper > 1 to Σ lower < 1, so both neighbours always exist.
        after = (sums > 1).sum(-1, keepdim=True).clamp(1, corners.shape[-1] - 1)
        high, low = sums.gather(-1, after - 1), sums.gather(-1, after)
        left, right = corners.gather(-1, after - 1), corners.gather(-1, after)
        share = torch.where(high > low, (high - 1) / (high - low), 0.0)
        return self._levelled(points, left + share * (right - left))

    def as_tensor(self, points: tuple[MergeWeights, ...]) -> Float64[Tensor, "n k"]:
        """Stack merge weights as rows."""
        rows = [point.values for point in points]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, self.space.size)

    def as_weights(self, point: Float64[Tensor, " k"]) -> MergeWeights:
        """Return the merge weights nearest to a point; a weight at its bound is exactly there."""
        legal = self.project(point.unsqueeze(0))[0]
        legal = torch.where((legal - self.lower).abs() < _SNAP, self.lower, legal)
        legal = torch.where((legal - self.upper).abs() < _SNAP, self.upper, legal)
        return MergeWeights(tuple(legal.tolist()))

    def _levelled(
        self, points: Float64[Tensor, "... k"], level: Float64[Tensor, "... 1"]
    ) -> Float64[Tensor, "... k"]:
        """Lower points by a level and cut them at the bounds."""
        return torch.minimum(torch.maximum(points - level, self.lower), self.upper)


def region(geometry: Geometry, middle: Float64[Tensor, " k"], reach: float) -> Geometry:
    """Return the part of a polytope where each weight is within ``reach`` of legal weights.

    Coordinates do not depend on bounds, so both polytopes share them.
    """
    space, near = geometry.space, geometry.project(middle.unsqueeze(0))[0].tolist()
    lower = tuple(max(low, at - reach) for low, at in zip(space.lower, near, strict=True))
    upper = tuple(min(high, at + reach) for high, at in zip(space.upper, near, strict=True))
    return Geometry(SearchSpace(space.kind, lower, upper))


def helmert(size: int) -> Float64[Tensor, "k d"]:
    """Return an orthonormal basis of the plane of vectors that sum to zero, as columns.

    Column j compares checkpoint j + 1 with the mean of the j + 1 before it (Helmert's matrix).
    """
    basis = torch.zeros(size, size - 1, dtype=torch.float64)
    for column in range(size - 1):
        older = column + 1
        basis[:older, column] = -1 / older
        basis[older, column] = 1
    return basis / basis.norm(dim=0)
