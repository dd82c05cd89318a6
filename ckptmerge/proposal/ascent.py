"""Climbing within a polytope: spectral projected gradient, all starts at once.

Birgin, Martínez and Raydan, "Nonmonotone spectral projected gradient methods on convex sets"
(SIAM J. Optim. 10, 2000), here monotone and batched: a projection costs microseconds on a
box-constrained simplex, so a step costs one evaluation of the function and nothing else.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

_FARTHEST = 4.0
"""Longest step before projection, in weights. Across flat ground the spectral length has no bound,
and a point a billion away is projected with an error of the rounding of a billion."""

_BACKTRACK = 0.25
"""Factor by which a step that led downhill is shortened."""

_STILL = 1e-7
"""Movement of every weight below which a start counts as arrived."""


def ascend(
    function: Callable[[Tensor], Tensor],
    starts: Float64[Tensor, "n k"],
    project: Callable[[Tensor], Tensor],
    *,
    steps: int,
    reach: float = 0.1,
) -> tuple[Float64[Tensor, "n k"], Float64[Tensor, " n"]]:
    """Climb from each start to a local maximum of a differentiable function on a convex set.

    Args:
        function: Maps points (n, k) to values (n,), each row on its own.
        starts: Points of the convex set.
        project: Maps points to the nearest points of the set.
        steps: Evaluations of the function, at most.
        reach: Length of the first step, in weights.

    Returns:
        The points reached and their values, never lower than at the starts.
    """
    points = starts.clone()
    values, slopes = _with_gradient(function, points)
    lengths = reach / slopes.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    for _ in range(steps):
        step = lengths * slopes
        step = step * (_FARTHEST / step.norm(dim=-1, keepdim=True).clamp(min=_FARTHEST))
        moved = project(points + step)
        if bool(((moved - points).abs() < _STILL).all()):
            break
        trial_values, trial_slopes = _with_gradient(function, moved)
        better = (trial_values > values).unsqueeze(-1)
        # Barzilai and Borwein's length: the inverse curvature seen along the last step.
        span, turn = moved - points, slopes - trial_slopes
        curvature = (span * turn).sum(-1, keepdim=True)
        spectral = (span * span).sum(-1, keepdim=True) / curvature.clamp(min=1e-30)
        lengths = torch.where(better, spectral, lengths * _BACKTRACK)
        points = torch.where(better, moved, points)
        slopes = torch.where(better, trial_slopes, slopes)
        values = torch.where(better.squeeze(-1), trial_values, values)
    return points, values


def _with_gradient(
    function: Callable[[Tensor], Tensor], points: Float64[Tensor, "n k"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "n k"]]:
    """Return the function's values and their gradients, row by row."""
    points = points.detach().requires_grad_()
    values = function(points)
    (slopes,) = torch.autograd.grad(values.sum(), points)
    return values.detach(), slopes
