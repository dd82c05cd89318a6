import torch

from ckptmerge.domain.space import SearchSpace
from ckptmerge.proposal.ascent import ascend
from ckptmerge.proposal.geometry import Geometry
from ckptmerge.proposal.starts import generator, uniform


def bowl(target, stiffness):
    """Return the negated quadratic with its maximum, unconstrained, at the target."""
    return lambda points: -((points - target).square() * stiffness).sum(-1)


def test_an_ascent_finds_a_maximum_inside():
    geometry = Geometry(SearchSpace.simplex(4))
    target = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    stiffness = torch.tensor([1.0, 100.0, 1.0, 10.0], dtype=torch.float64)
    starts = torch.eye(4, dtype=torch.float64)
    reached, values = ascend(bowl(target, stiffness), starts, geometry.project, steps=100)
    assert (reached - target).abs().max() < 1e-3
    assert values.abs().max() < 1e-6


def test_an_ascent_stays_at_the_bound_that_holds_it():
    geometry = Geometry(SearchSpace.simplex(3))
    target = torch.tensor([-0.5, 0.4, 1.1], dtype=torch.float64)
    start = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    reached, _ = ascend(bowl(target, torch.ones(3)), start, geometry.project, steps=100)
    assert (reached[0] - geometry.project(target.unsqueeze(0))[0]).abs().max() < 1e-5
    assert reached[0, 0] == 0.0


def test_an_ascent_never_ends_lower_than_it_began():
    geometry = Geometry(SearchSpace.simplex(3))
    starts = uniform(geometry, generator(0, 0), 64)

    def rugged(points):
        return (40 * points).sin().sum(-1)

    for steps in (1, 2, 3):
        _, values = ascend(rugged, starts, geometry.project, steps=steps)
        assert (values >= rugged(starts)).all()


def test_an_ascent_up_an_even_slope_ends_at_the_legal_edge():
    geometry = Geometry(SearchSpace.simplex(4))
    starts = uniform(geometry, generator(0, 0), 32)
    tilt = torch.tensor([1.0, 2.0, 5.0, 5.0], dtype=torch.float64)
    reached, _ = ascend(lambda points: points @ tilt, starts, geometry.project, steps=20)
    # Without curvature the spectral step is endless; the edge is where it must end all the same.
    assert (reached.sum(-1) - 1).abs().max() < 1e-12
    assert (reached[:, :2] == 0.0).all()
