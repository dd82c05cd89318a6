import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.proposal.geometry import Geometry, helmert, region
from ckptmerge.proposal.starts import generator, starts, uniform

quick = settings(deadline=None, max_examples=40)


@st.composite
def spaces(draw):
    """Polytopes of two to ten checkpoints, the bounds of each its own, cutting or not."""
    size = draw(st.integers(2, 10))
    lower = [draw(st.floats(-0.5, 0.9 / size)) for _ in range(size)]
    upper = [max(low, 1.1 / size) + draw(st.floats(0.01, 1.0)) for low in lower]
    return SearchSpace("simplex", tuple(lower), tuple(upper))


def points(space, seed, count=20, spread=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, space.size)) * spread)


@quick
@given(st.integers(2, 32))
def test_the_basis_is_orthonormal_and_its_vectors_sum_to_zero(size):
    basis = helmert(size)
    assert torch.allclose(basis.T @ basis, torch.eye(size - 1, dtype=torch.float64), atol=1e-12)
    assert basis.sum(0).abs().max() < 1e-12


@quick
@given(spaces(), st.integers(0, 1000))
def test_coordinates_lead_back_to_the_weights_and_keep_distances(space, seed):
    geometry = Geometry(space)
    legal = uniform(geometry, generator(seed, 0), 10)
    coordinates = geometry.coordinates(legal)
    assert coordinates.shape == (10, space.dimension)
    assert (geometry.weights(coordinates) - legal).abs().max() < 1e-12
    assert torch.allclose(torch.pdist(coordinates), torch.pdist(legal), atol=1e-12)


@quick
@given(spaces(), st.integers(0, 1000), st.sampled_from([1e-9, 0.3, 50.0]))
def test_a_projected_point_is_legal(space, seed, spread):
    geometry = Geometry(space)
    for point in geometry.project(points(space, seed, spread=spread)):
        weights = geometry.as_weights(point)
        assert space.holds(weights)
        assert isinstance(weights, MergeWeights)


@quick
@given(spaces(), st.integers(0, 1000))
def test_no_legal_point_is_nearer_than_the_projection(space, seed):
    geometry = Geometry(space)
    outside = points(space, seed)
    nearest = geometry.project(outside)
    # p is the projection of q onto a convex set exactly if (q - p)(u - p) <= 0 for every u in it.
    others = uniform(geometry, generator(seed, 1), 50)
    for q, p in zip(outside, nearest, strict=True):
        assert ((others - p) @ (q - p)).max() < 1e-9


@quick
@given(spaces(), st.integers(0, 1000))
def test_a_legal_point_is_its_own_projection(space, seed):
    geometry = Geometry(space)
    legal = uniform(geometry, generator(seed, 0), 10)
    assert (geometry.project(legal) - legal).abs().max() < 1e-12


@quick
@given(spaces(), st.integers(0, 1000), st.integers(0, 5))
def test_every_start_is_legal_and_the_same_each_time(space, seed, index):
    geometry = Geometry(space)
    incumbent = torch.full((space.size,), 1 / space.size, dtype=torch.float64)
    first, again = (starts(geometry, incumbent, generator(seed, index), 32) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (32, space.size)
    assert all(space.holds(geometry.as_weights(point)) for point in first)


def test_an_even_sample_of_a_cut_polytope_is_even():
    # The triangle with each weight at most 1/2 is symmetric in its six orders, and its centre
    # triangle (each weight at least 1/4) has a quarter of its area.
    geometry = Geometry(SearchSpace.simplex(3, 0.0, 0.5))
    sample = uniform(geometry, generator(0, 0), 6000)
    orders = [tuple(row) for row in sample.argsort(dim=-1).tolist()]
    for order in itertools.permutations(range(3)):
        assert abs(orders.count(order) / 6000 - 1 / 6) < 0.02
    assert abs(float((sample.min(dim=-1).values > 0.25).double().mean()) - 1 / 4) < 0.02


def test_another_index_gives_other_starts():
    geometry = Geometry(SearchSpace.simplex(4))
    first, second = (uniform(geometry, generator(0, index), 8) for index in (0, 1))
    assert not torch.equal(first, second)


@quick
@given(spaces(), st.integers(0, 1000), st.sampled_from([0.01, 0.3]))
def test_a_region_is_the_legal_part_of_a_box_and_shares_coordinates(space, seed, reach):
    geometry = Geometry(space)
    middle = uniform(geometry, generator(seed, 0), 1)[0]
    near = region(geometry, middle, reach)
    sample = uniform(near, generator(seed, 1), 10)
    assert all(space.holds(near.as_weights(point)) for point in sample)
    assert (sample - middle).abs().max() <= reach + 1e-12
    assert torch.equal(near.coordinates(sample), geometry.coordinates(sample))
