"""Preflight: do these checkpoints merge at all?

Two checkpoints of one trajectory lie in one basin of the loss, and what lies between them is no
worse than both. Two unrelated models of the same shape are separated by a barrier; averaging them
gives noise, and no search over weights can help.
"""

from ckptmerge.domain.observation import Objective, Split
from ckptmerge.errors import BarrierError
from ckptmerge.evaluation.paired import gain
from ckptmerge.evaluation.scores import DocumentScores

LEVEL = 0.9973
"""Two-sided level of three standard errors of a normal difference."""


def require_no_barrier(
    *,
    oldest: DocumentScores,
    newest: DocumentScores,
    midpoint: DocumentScores,
    objective: Objective,
) -> None:
    """Check that the midpoint of a window is not clearly worse than both of its ends.

    Raises:
        BarrierError: it is, by more than three standard errors of the paired difference.
    """
    losses = [
        -gain(
            midpoint, end, name=name, objective=objective, split=Split.SEARCH, seed=0, level=LEVEL
        ).interval.high
        for name, end in (("oldest", oldest), ("newest", newest))
    ]
    if min(losses) > 0:
        raise BarrierError(
            "these do not merge: barrier. The midpoint of the oldest and the newest checkpoint is "
            f"at least {min(losses):.3f} bits per byte worse than either. Are they of one training "
            "run, with neither a re-initialised nor a permuted model between them? If the window "
            "is only too long, use fewer checkpoints, closer together"
        )
