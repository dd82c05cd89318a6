"""Baselines: merge weights that nobody had to search, and that a search must beat.

Sources: uniform averages (SMA) and weighted averages (WMA, EMA) as in Li et al., "Model Merging in
Pre-training of Large Language Models" (arXiv 2505.12082, eqs. 2-5); 1-sqrt as the decay emulation
of Tian et al., "WSM" (arXiv 2507.17634, theorem 3.1), discretised with f(i/n) so that the newest
checkpoint keeps a weight.
"""

import math
from itertools import pairwise

from ckptmerge.domain.weights import MergeWeights

NEWEST = "newest"
PREVIOUS = "previous"
OLDEST = "oldest"
MIDPOINT = "midpoint"


def uniform(size: int, last: int) -> tuple[str, MergeWeights]:
    """Average the ``last`` of ``size`` checkpoints: c_j = 1/last."""
    return f"uniform-{last}", MergeWeights.uniform(size, last)


def wma(size: int) -> tuple[str, MergeWeights]:
    """Weigh checkpoints linearly towards the newest: c_j proportional to j + 1."""
    total = size * (size + 1) / 2
    return f"wma-{size}", MergeWeights.normalised([(j + 1) / total for j in range(size)])


def ema(size: int, rate: float = 0.2) -> tuple[str, MergeWeights]:
    """Average exponentially from the oldest on: c_j = a(1-a)^(n-1-j), c_0 = (1-a)^(n-1)."""
    values = [rate * (1 - rate) ** (size - 1 - j) for j in range(size)]
    values[0] = (1 - rate) ** (size - 1)
    return f"ema-{rate:g}-{size}", MergeWeights.normalised(values)


def one_minus_sqrt(size: int) -> tuple[str, MergeWeights]:
    """Emulate a 1-sqrt learning-rate decay: c_j = sqrt((j+1)/n) - sqrt(j/n)."""
    edges = [math.sqrt(j / size) for j in range(size + 1)]
    values = [high - low for low, high in pairwise(edges)]
    return f"1-sqrt-{size}", MergeWeights.normalised(values)


def midpoint(size: int) -> MergeWeights:
    """Weigh the oldest and the newest checkpoint alike."""
    return MergeWeights((0.5, *(0.0,) * (size - 2), 0.5))


def initial_design(size: int) -> dict[str, MergeWeights]:
    """Name the merge weights that a study measures before it has a model of the loss, in order.

    First both ends of the window and their midpoint, which show whether these checkpoints merge at
    all; then averages nobody had to search; last the parents not measured yet, since nothing is
    promoted that was not shown to beat the best of them. A search that begins here cannot end below
    the best of these on the documents it searches on.
    """
    design = {
        NEWEST: MergeWeights.vertex(size, -1),
        PREVIOUS: MergeWeights.vertex(size, -2),
        OLDEST: MergeWeights.vertex(size, 0),
        MIDPOINT: midpoint(size),
    }
    lengths = [2, 3, 4, 6, *range(8, size, 4), size]
    design.update(uniform(size, last) for last in sorted(set(lengths)) if last <= size)
    if size > 2:
        design.update([one_minus_sqrt(size)])
    design.update((f"parent-{j}", MergeWeights.vertex(size, j)) for j in range(1, size - 2))
    distinct: dict[MergeWeights, str] = {}
    for name, weights in design.items():
        distinct.setdefault(weights, name)
    if size == 2:
        distinct = {w: uniform(2, 2)[0] if n == MIDPOINT else n for w, n in distinct.items()}
    return {name: weights for weights, name in distinct.items()}
