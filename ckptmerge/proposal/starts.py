"""Feasible points to start from: where a search for the best candidate looks first.

Half of them cover the polytope evenly, half crowd round the incumbent at all scales: near the end
of a search the best candidate is close to it, and an even sample in seven dimensions never is.
"""

import numpy as np
import torch
from jaxtyping import Float64
from numpy.random import Generator
from torch import Tensor

from ckptmerge.proposal.geometry import Geometry

_EXCHANGES_PER_CHECKPOINT = 12
"""Exchanges a chain makes for each checkpoint before its end counts as uniform."""

_CLOSEST = 2.5
"""Local starts lie between 1 and 10^-2.5 of the way from the incumbent to an even sample."""


def generator(seed: int, index: int) -> Generator:
    """Return the source of all randomness of one proposal."""
    return np.random.default_rng([seed, index])


def starts(
    geometry: Geometry, incumbent: Float64[Tensor, " k"], random: Generator, count: int
) -> Float64[Tensor, "n k"]:
    """Return ``count`` legal weights, one half even over the polytope and one half local.

    A local start lies on the way from the incumbent to an even sample, so it is legal because the
    polytope is convex.
    """
    even = uniform(geometry, random, count)
    local = count // 2
    reach = torch.from_numpy(10 ** -(_CLOSEST * random.random((local, 1))))
    origin = geometry.project(incumbent.unsqueeze(0))
    return torch.cat([even[local:], origin + reach * (even[:local] - origin)])


def uniform(geometry: Geometry, random: Generator, count: int) -> Float64[Tensor, "n k"]:
    """Return legal weights drawn uniformly from the polytope.

    Above its lower bounds a polytope is a scaled simplex, of which a flat Dirichlet is the uniform
    distribution; upper bounds that cut it are respected by exchanging (see `_exchange`).
    """
    slack = 1 - geometry.lower.sum()
    shares = torch.from_numpy(random.dirichlet(np.ones(geometry.space.size), count))
    points = geometry.lower + slack * shares
    if bool((geometry.upper - geometry.lower < slack).any()):
        return _exchange(geometry, geometry.project(points), random)
    return geometry.project(points)


def _exchange(
    geometry: Geometry, points: Float64[Tensor, "n k"], random: Generator
) -> Float64[Tensor, "n k"]:
    """Run each point as a Markov chain whose stationary distribution is uniform.

    A step picks two checkpoints and moves a uniform share of what may pass between them: hit and
    run (Smith 1984) along the polytope's edges' directions, exact because each step draws from the
    uniform distribution restricted to its line.
    """
    count, size = points.shape
    points = points.clone()
    rows = torch.arange(count)
    for _ in range(_EXCHANGES_PER_CHECKPOINT * size):
        gains = torch.from_numpy(random.integers(size, size=count))
        pays = (gains + torch.from_numpy(random.integers(1, size, size=count))) % size
        here, there = points[rows, gains], points[rows, pays]
        most = torch.minimum(geometry.upper[gains] - here, there - geometry.lower[pays])
        least = torch.maximum(geometry.lower[gains] - here, there - geometry.upper[pays])
        moved = least + (most - least) * torch.from_numpy(random.random(count))
        points[rows, gains], points[rows, pays] = here + moved, there - moved
    return geometry.project(points)
