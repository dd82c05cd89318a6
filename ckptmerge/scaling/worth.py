"""What a merge is worth in steps of the run it came from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ckptmerge.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Worth:
    """Steps of training at the run's own learning rate that would have given the merge's loss."""

    steps: float | None
    """None when the run no longer improves, so that no number of steps is known to be enough."""
    bound: bool
    """True when the merge is better than anything the run reached: at least so many steps."""


def worth_in_steps(steps: Sequence[int], losses: Sequence[float], *, merged: float) -> Worth:
    """Compare a merge made at the last step with the run's own loss curve.

    Where the merge is no better than the curve's last point, it is worth nothing. Where it is
    better, no point of the curve says when the run would have got there, so the answer is a lower
    bound: a loss curve at a constant learning rate flattens, so from the last step on it falls no
    faster than it did, by least squares, over the second half of training.

    Args:
        steps: steps of the run's checkpoints, rising.
        losses: their losses, in the unit of ``merged``.
        merged: the merge's loss.

    Raises:
        InvalidInputError: fewer than four checkpoints, or steps that do not rise.
    """
    at, loss = np.asarray(steps, dtype=float), np.asarray(losses, dtype=float)
    if len(at) < 4 or len(at) != len(loss) or (np.diff(at) <= 0).any():
        raise InvalidInputError("a loss curve needs four checkpoints or more, their steps rising")
    late = at >= at[-1] / 2
    slope, intercept = np.polyfit(at[late], loss[late], 1)
    gain = slope * at[-1] + intercept - merged  # the smoothed curve, not one lucky checkpoint
    if gain <= 0:
        return Worth(0.0, bound=False)
    return Worth(gain / -slope if slope < 0 else None, bound=True)
