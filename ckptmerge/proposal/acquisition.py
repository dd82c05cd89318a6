"""Choosing the next candidate: the largest expected improvement that is not a repeat.

Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization" (NeurIPS
2023), in its noisy form: the improvement is over the best of the observed and pending candidates
as the model believes them to be, never over the best raw number.
"""

import math
from dataclasses import dataclass

import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.sampling import SobolQMCNormalSampler
from jaxtyping import Float64
from torch import Tensor

from ckptmerge.proposal.ascent import ascend
from ckptmerge.proposal.geometry import Geometry
from ckptmerge.proposal.surrogate import Surrogate

SAMPLES = 64
"""Quasi-random posterior samples behind an expected improvement."""

RAW, REFINED = 256, 4
"""Starts that are scored, and of these the ones that climb."""

NEAREST = 1e-4
"""Distance in weights within which a candidate repeats an observed or pending one. A loss that
bends by one bit per byte over the whole window differs there by 1e-8 bits: of no use to anyone."""

_STEPS = 40
"""Evaluations a climb may take."""


@dataclass(frozen=True)
class Choice:
    """A candidate and how much better than the incumbent it is expected to be."""

    weights: Float64[Tensor, " k"]
    expected_improvement: float
    """In the unit of the losses."""


def choose(
    surrogate: Surrogate,
    *,
    region: Geometry,
    observed: Float64[Tensor, "n k"],
    pending: Float64[Tensor, "m k"],
    starts: Float64[Tensor, "s k"],
    seed: int,
) -> Choice:
    """Return the new candidate with the largest expected improvement.

    Args:
        surrogate: Of the loss.
        region: Where candidates may lie: the search space, or the part of it that is trusted.
        observed: Candidates that were measured.
        pending: Candidates that are being measured.
        starts: Weights of the region to begin at; the best of them climb.
        seed: Of the quasi-random samples.
    """
    acquisition = qLogNoisyExpectedImprovement(
        surrogate.model,
        region.coordinates(observed),
        SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=seed),
        X_pending=region.coordinates(pending) if len(pending) else None,
        prune_baseline=True,
    )

    def improvement(points: Tensor) -> Tensor:
        return acquisition(region.coordinates(points).unsqueeze(-2))

    with torch.no_grad():
        scores = improvement(starts)
    order = scores.argsort(descending=True, stable=True)
    reached, heights = ascend(improvement, starts[order[:REFINED]], region.project, steps=_STEPS)
    climbed = heights.argsort(descending=True, stable=True)
    points = torch.cat([reached[climbed], starts[order]])
    values = torch.cat([heights[climbed], scores[order]])
    row = first_new(points, torch.cat([observed, pending]))
    return Choice(points[row], math.exp(float(values[row])) * surrogate.scale)


def first_new(points: Float64[Tensor, "s k"], known: Float64[Tensor, "n k"]) -> int:
    """Return the first row that repeats no known point, or the one farthest from all of them."""
    if not len(known):
        return 0
    apart = torch.cdist(points, known).min(dim=-1).values
    new = (apart >= NEAREST).nonzero()
    return int(new[0]) if len(new) else int(apart.argmax())
