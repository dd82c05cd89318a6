"""Ways to search merge weights: ours, and what people do instead.

A strategy yields candidates one by one, and may look at the losses of those it has yielded: each is
measured before the next is asked for.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.quasirandom import SobolEngine

from ckptmerge.domain.study import Study
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.proposal.bayesian import propose
from ckptmerge.proposal.geometry import Geometry
from ckptmerge.proposal.request import Proposal, ProposalRequest
from ckptmerge.proposal.starts import uniform
from ckptmerge.workflow.ask import Stop, ask
from ckptmerge.workflow.tell import tell
from tests.benchmarks.landscape import Landscape

Strategy = Callable[[Study, Landscape], Iterator[MergeWeights]]
"""From a study that has not begun (its space, its budget, its seed) and a window's losses."""

_CLOSE = 1e-4
"""Difference in λ below which a parabola has found its minimum."""


@dataclass
class Patient:
    """Our proposer, kept from stopping, with what it said about stopping."""

    floor: float = float("nan")
    """The statistical floor as last estimated, in bits per byte."""
    stopped: int | None = None
    """Passes after which it would have stopped."""

    def __call__(self, request: ProposalRequest) -> Proposal:
        """Propose as the product does."""
        proposal = propose(request)
        self.floor = proposal.floor
        if proposal.stop is not None and self.stopped is None:
            self.stopped = len(request.observations)
        return replace(proposal, stop=None)


def ours(study: Study, landscape: Landscape, proposer: Patient) -> Iterator[MergeWeights]:
    """Search as `ckptmerge optimize` does, to the end of the budget."""
    while not isinstance(step := ask(study, proposer), Stop):
        study, trial = step
        yield trial.weights
        study = tell(
            study, trial.index, landscape.scores(trial.weights), variance=landscape.variance
        )


def uniform_lengths(study: Study, landscape: Landscape) -> Iterator[MergeWeights]:  # noqa: ARG001 - a Strategy
    """Average the last 1, 2, … k checkpoints alike, and keep the best."""
    size = study.spec.space.size
    yield from (MergeWeights.uniform(size, last) for last in range(1, size + 1))


def dirichlet(study: Study, landscape: Landscape) -> Iterator[MergeWeights]:  # noqa: ARG001 - a Strategy
    """Draw from the uniform distribution over the space."""
    geometry = Geometry(study.spec.space)
    drawn = uniform(geometry, np.random.default_rng(study.spec.seed), study.spec.budget)
    yield from map(geometry.as_weights, drawn)


def sobol(study: Study, landscape: Landscape) -> Iterator[MergeWeights]:  # noqa: ARG001 - a Strategy
    """Spread a scrambled Sobol sequence over the space.

    The gaps between sorted coordinates of the cube are uniform on the simplex (Devroye 1986,
    theorem V.2.1), here scaled to the bounds; what an upper bound cuts off is projected back.
    """
    geometry = Geometry(study.spec.space)
    engine = SobolEngine(study.spec.space.dimension, scramble=True, seed=study.spec.seed)
    cube = engine.draw(study.spec.budget, dtype=torch.float64).sort(dim=-1).values
    edges = torch.nn.functional.pad(torch.nn.functional.pad(cube, (1, 0)), (0, 1), value=1.0)
    slack = 1 - geometry.lower.sum()
    yield from map(geometry.as_weights, geometry.lower + slack * edges.diff(dim=-1))


def parabola(study: Study, landscape: Landscape) -> Iterator[MergeWeights]:
    """Of a pair: both ends and the middle, then the vertex through the best three, and so on."""
    low, high = study.spec.space.lower[1], study.spec.space.upper[1]
    shares = [1.0, 0.0, 0.5]
    yield from map(_pair, shares)
    while True:
        best = sorted(shares, key=lambda share: landscape.loss(_pair(share)))[:3]
        bend, slope, _ = np.polyfit(best, [landscape.loss(_pair(share)) for share in best], 2)
        if bend <= 0:
            return
        vertex = float(np.clip(-slope / (2 * bend), low, high))
        if min(abs(vertex - share) for share in shares) < _CLOSE:
            return
        shares.append(vertex)
        yield _pair(vertex)


def losses(strategy: Iterator[MergeWeights], landscape: Landscape, budget: int) -> list[float]:
    """Return the best loss after each pass; a strategy that ends early keeps its best."""
    measured = [landscape.loss(weights) for weights in itertools.islice(strategy, budget)]
    best = list(itertools.accumulate(measured, min))
    return best + best[-1:] * (budget - len(best))


def _pair(share: float) -> MergeWeights:
    return MergeWeights.of(1 - share, share)
