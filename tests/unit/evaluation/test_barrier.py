"""A barrier is a midpoint that is clearly worse than both ends."""

import numpy as np
import pytest

from ckptmerge.domain.observation import Objective
from ckptmerge.errors import BarrierError
from ckptmerge.evaluation.barrier import require_no_barrier
from ckptmerge.evaluation.scores import DocumentScores


def losses(shift: float, *, noise: float = 0.0, seed: int = 1) -> DocumentScores:
    rng = np.random.default_rng(0)
    own = np.random.default_rng(seed).normal(size=80)
    level = rng.uniform(1.0, 2.0, 80) + shift + noise * (own - own.mean())
    size = np.full(80, 100, dtype=np.int64)
    return DocumentScores(
        nats=100 * level, bytes=size, tokens=size, domains=("a",) * 80,
        units=tuple(map(str, range(80))),
    )  # fmt: skip


def check(oldest: DocumentScores, newest: DocumentScores, midpoint: DocumentScores) -> None:
    require_no_barrier(oldest=oldest, newest=newest, midpoint=midpoint, objective=Objective())


def test_a_midpoint_worse_than_both_ends_is_a_barrier() -> None:
    with pytest.raises(BarrierError, match="these do not merge: barrier"):
        check(losses(0.1), losses(0.0), losses(0.5, noise=0.05))


def test_a_midpoint_between_its_ends_is_none() -> None:
    check(losses(0.6), losses(0.0), losses(0.3, noise=0.05))


def test_a_midpoint_worse_within_the_noise_is_none() -> None:
    # Worse on average, by about one and a half standard errors (0.05 / sqrt(80) = 0.0056).
    check(losses(0.0), losses(0.0), losses(0.008, noise=0.05))
