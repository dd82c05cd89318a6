import numpy as np
import pytest
import torch

from ckptmerge.domain.baselines import initial_design
from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.proposal.bayesian import propose
from ckptmerge.proposal.geometry import Geometry, helmert
from ckptmerge.proposal.request import ObservedPoint, ProposalRequest
from ckptmerge.proposal.starts import generator, starts
from ckptmerge.proposal.stopping import reason_to_stop, statistical_floor
from ckptmerge.proposal.surrogate import fit

SIZE, DOCUMENTS, RESAMPLES = 4, 400, 64
OPTIMUM = np.array([0.15, 0.2, 0.25, 0.4])


class Documents:
    """Documents whose losses are quadratics with one Hessian and minima of their own."""

    def __init__(self, seed, spread=0.1):
        random = np.random.default_rng(seed)
        directions = random.normal(size=(SIZE, SIZE))
        self.hessian = directions @ directions.T + 0.5 * np.eye(SIZE)
        self.minima = OPTIMUM + spread * random.normal(size=(DOCUMENTS, SIZE))
        self.resamples = random.integers(DOCUMENTS, size=(RESAMPLES, DOCUMENTS))

    def observe(self, weights):
        apart = np.array(weights.values) - self.minima
        losses = 1 + 0.5 * np.einsum("ni,ij,nj->n", apart, self.hessian, apart)
        replicates = losses[self.resamples].mean(axis=1)
        return ObservedPoint(weights, float(losses.mean()), 0.0, tuple(replicates.tolist()))

    @property
    def lowest(self):
        """The lowest loss on these documents: at the mean of the minima, moved onto the plane."""
        mean, basis = self.minima.mean(axis=0), helmert(SIZE).numpy()
        curvature = basis.T @ self.hessian @ basis
        at = basis @ np.linalg.solve(curvature, basis.T @ self.hessian @ (mean - OPTIMUM))
        return self.observe(MergeWeights.normalised(OPTIMUM + at)).value

    @property
    def price(self):
        """tr(J⁻¹ I) / (2 n) within the plane of weights that sum to one."""
        basis = helmert(SIZE).numpy()
        gradients = (OPTIMUM - self.minima) @ self.hessian @ basis
        curvature = basis.T @ self.hessian @ basis
        return np.trace(np.linalg.solve(curvature, np.cov(gradients.T))) / (2 * DOCUMENTS)


def observations(documents, extra=6, seed=0):
    """Measure the initial design and some points round the optimum."""
    random = np.random.default_rng(seed)
    near = 0.6 * OPTIMUM + 0.4 * random.dirichlet(np.ones(SIZE), extra)
    designs = [*initial_design(SIZE).values(), *(MergeWeights.normalised(row) for row in near)]
    return tuple(documents.observe(weights) for weights in designs)


def floor_of(points, space, replicates=None):
    geometry = Geometry(space)
    observed = geometry.as_tensor(tuple(point.weights for point in points))
    losses = torch.tensor([point.value for point in points], dtype=torch.float64)
    if replicates is None:
        rows = [point.replicates for point in points]
        replicates = torch.tensor(rows, dtype=torch.float64)
    surrogate = fit(geometry, observed, losses, torch.zeros_like(losses))
    begin = starts(geometry, torch.tensor(OPTIMUM), generator(0, 0), 256)
    return statistical_floor(
        surrogate, region=geometry, losses=losses, replicates=replicates, starts=begin
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_floor_is_the_price_of_finite_documents(seed):
    documents = Documents(seed)
    floor = floor_of(observations(documents), SearchSpace.simplex(SIZE))
    assert documents.price / 1.6 < floor < documents.price * 1.6


def test_a_common_shift_of_all_documents_moves_no_optimum():
    geometry = Geometry(SearchSpace.simplex(8))
    observed = geometry.as_tensor(tuple(initial_design(8).values()))
    ramp = torch.arange(8, dtype=torch.float64) / 28
    losses = 1 + (observed - ramp).cumsum(dim=-1).square().sum(dim=-1)
    shifts = torch.linspace(-0.5, 0.5, 5, dtype=torch.float64)
    floor = statistical_floor(
        fit(geometry, observed, losses, torch.zeros_like(losses)),
        region=geometry,
        losses=losses,
        replicates=losses.unsqueeze(-1) + shifts,
        starts=starts(geometry, ramp, generator(0, 0), 256),
    )
    assert floor < 1e-9


def test_without_replicates_the_floor_is_zero():
    points = observations(Documents(0))
    replicates = torch.empty(len(points), 0, dtype=torch.float64)
    assert floor_of(points, SearchSpace.simplex(SIZE), replicates) == 0.0


def test_a_search_stops_at_the_floor_and_not_before():
    documents, space = Documents(1), SearchSpace.simplex(SIZE)
    points = tuple(map(documents.observe, initial_design(SIZE).values()))
    for index in range(12):
        proposal = propose(ProposalRequest(space, points, (), seed=0, index=index))
        if proposal.stop is not None:
            break
        points = (*points, documents.observe(proposal.weights))
    assert proposal.stop is not None
    assert index > 0
    assert proposal.expected_improvement < proposal.floor
    assert points[proposal.incumbent].value - documents.lowest < 2 * documents.price


def test_a_search_without_replicates_never_stops_by_itself():
    documents, space = Documents(1), SearchSpace.simplex(SIZE)
    points = tuple(
        ObservedPoint(point.weights, point.value) for point in observations(documents, extra=20)
    )
    proposal = propose(ProposalRequest(space, points, (), seed=0, index=0))
    assert proposal.floor == 0.0
    assert proposal.stop is None


@pytest.mark.parametrize(
    ("gain", "floor", "observed", "stops"),
    [
        (1e-5, 2e-5, 10, True),
        (2e-5, 1e-5, 10, False),
        (1e-5, 1e-5, 10, False),
        (1e-5, 2e-5, 9, False),
        (0.0, 0.0, 50, False),
    ],
)
def test_a_reason_to_stop_needs_a_small_gain_and_enough_observations(gain, floor, observed, stops):
    reason = reason_to_stop(
        expected_improvement=gain, floor=floor, observations=observed, dimension=7
    )
    assert (reason is not None) == stops
    if reason is not None:
        assert "1e-05 bits per byte" in reason
