"""What the surrogate believes: the loss of every observed merge, and a line through the space.

The same fit as stands behind a proposal, under the same numerics, so that what is shown is what the
search acts on. Deviations are of the loss itself, without the noise of another measurement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from botorch.posteriors import GPyTorchPosterior
from jaxtyping import Float64
from torch import Tensor

from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import RefusedError
from ckptmerge.proposal.bayesian import numerics, propose
from ckptmerge.proposal.belief import (
    Landmark,
    Posterior,
    PosteriorRequest,
    Prediction,
    Slice,
)
from ckptmerge.proposal.geometry import Geometry
from ckptmerge.proposal.surrogate import Surrogate, fit

POINTS = 51
"""Points of the line: a smooth curve at the width of a page."""

_FARTHEST = 2.0
"""How far the line goes on beyond the incumbent, at most, in its distances from the newest."""


def posterior(request: PosteriorRequest) -> Posterior:
    """Return what is believed about a study's losses, a pure function of the request.

    Raises:
        RefusedError: there are too few observations to believe anything of, or nothing can be
            fitted to them.
    """
    _require_enough(request)
    proposal = propose(request.study)
    if proposal.fallback is not None:
        raise RefusedError(f"nothing can be believed of these observations: {proposal.fallback}")
    with numerics():
        believed = _Belief.of(request)
        observed = believed.predictions([p.weights for p in request.study.observations])
        floor = proposal.floor if request.study.observations[0].replicates else None
        return Posterior(
            observed=observed,
            incumbent=proposal.incumbent,
            expected_improvement=proposal.expected_improvement,
            floor=floor,
            line=_line(believed, observed[proposal.incumbent].weights),
            candidates=believed.predictions(request.candidates),
        )


def _require_enough(request: PosteriorRequest) -> None:
    """Check that a model of the loss is believed yet: the stopping rule draws the same line."""
    seen, needed = len(request.study.observations), request.study.space.dimension + 3
    if seen < needed:
        raise RefusedError(
            f"{seen} observations show too little of how a loss over {request.study.space.size} "
            f"checkpoints bends; ask again when there are {needed}"
        )


@dataclass(frozen=True, eq=False)
class _Belief:
    """A fitted surrogate, in bits per byte."""

    geometry: Geometry
    surrogate: Surrogate
    middle: float
    """Mean of the observed losses, about which the surrogate's heights are."""

    @classmethod
    def of(cls, request: PosteriorRequest) -> "_Belief":
        """Fit the surrogate."""
        geometry, points = Geometry(request.study.space), request.study.observations
        losses = torch.tensor([point.value for point in points], dtype=torch.float64)
        variances = torch.tensor([point.variance for point in points], dtype=torch.float64)
        weights = geometry.as_tensor(tuple(point.weights for point in points))
        return cls(geometry, fit(geometry, weights, losses, variances), float(losses.mean()))

    def predictions(self, points: Sequence[MergeWeights]) -> tuple[Prediction, ...]:
        """Predict merges, and what each gains over the newest checkpoint."""
        newest = MergeWeights.vertex(self.geometry.space.size, -1)
        means, covariance = self._joint(self.geometry.as_tensor((newest, *points)))
        variances = covariance.diagonal()
        apart = variances + variances[0] - 2 * covariance[0]
        deviations = variances.clamp(min=0).sqrt().tolist()
        gain_deviations = apart.clamp(min=0).sqrt().tolist()
        first, *others = means.tolist()
        return tuple(
            Prediction(weights, mean, deviations[row], first - mean, gain_deviations[row])
            for row, (weights, mean) in enumerate(zip(points, others, strict=True), start=1)
        )

    def _joint(
        self, weights: Float64[Tensor, "m k"]
    ) -> tuple[Float64[Tensor, " m"], Float64[Tensor, "m m"]]:
        """Return expected losses and their covariance."""
        with torch.no_grad():
            joint = cast(
                "GPyTorchPosterior",
                self.surrogate.model.posterior(self.geometry.coordinates(weights)),
            )
            heights = joint.mean.squeeze(-1)
            covariance = joint.distribution.covariance_matrix
        scale = self.surrogate.scale
        return self.middle - scale * heights, scale**2 * covariance


def _line(believed: _Belief, incumbent: MergeWeights) -> Slice:
    """Predict along the line that says most: between two checkpoints, or through the incumbent."""
    space = believed.geometry.space
    oldest, newest = MergeWeights.vertex(space.size, 0), MergeWeights.vertex(space.size, -1)
    if space.size == 2:
        # Both checkpoints were measured, also where the search is fenced in between them.
        first, last = min(space.lower[1], 0.0), max(space.upper[1], 1.0)
        return _slice(believed, ("oldest", oldest), ("newest", newest), first, last)
    uniform = MergeWeights.uniform(space.size)
    end = ("uniform", uniform) if incumbent == newest else ("incumbent", incumbent)
    last = _reach(space, newest, end[1])
    return _slice(believed, ("newest", newest), end, 0.0, last)


def _slice(
    believed: _Belief,
    begin: tuple[Landmark, MergeWeights],
    end: tuple[Landmark, MergeWeights],
    first: float,
    last: float,
) -> Slice:
    """Predict evenly spaced points of the line through two points."""
    at = tuple(first + (last - first) * step / (POINTS - 1) for step in range(POINTS))
    ends = list(zip(begin[1].values, end[1].values, strict=True))
    points = [MergeWeights(tuple(a + t * (b - a) for a, b in ends)) for t in at]
    return Slice(begin[0], end[0], at, believed.predictions(points))


def _reach(space: SearchSpace, begin: MergeWeights, end: MergeWeights) -> float:
    """Return how far the line from ``begin`` may go on beyond ``end`` (1) and stay legal."""
    bounds = zip(begin.values, end.values, space.lower, space.upper, strict=True)
    limits = [((high if b > a else low) - a) / (b - a) for a, b, low, high in bounds if a != b]
    return max(1.0, min(_FARTHEST, *limits))
