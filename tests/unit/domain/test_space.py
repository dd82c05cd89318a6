"""A search space holds exactly the weights within its bounds."""

import pytest

from ckptmerge.domain.baselines import ema, initial_design, one_minus_sqrt, wma
from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import InvalidInputError


def test_a_pair_bounds_the_weight_of_the_newer_checkpoint() -> None:
    space = SearchSpace.pair(-0.25, 1.5)
    assert space.holds(MergeWeights.of(-0.5, 1.5))
    assert space.holds(MergeWeights.of(1.25, -0.25))
    assert not space.holds(MergeWeights.of(-0.51, 1.51))
    assert space.dimension == 1


def test_a_simplex_excludes_negative_weights_unless_told() -> None:
    outside = MergeWeights.of(-0.1, 0.1, 1.0)
    assert not SearchSpace.simplex(3).holds(outside)
    assert SearchSpace.simplex(3, lower=-0.25).holds(outside)
    assert not SearchSpace.simplex(4).holds(MergeWeights.of(0.5, 0.5))


@pytest.mark.parametrize(("lower", "upper"), [(0.6, 1.0), (0.0, 0.3), (0.5, 0.5), (1.0, 0.0)])
def test_bounds_without_an_interior_are_refused(lower: float, upper: float) -> None:
    with pytest.raises(InvalidInputError):
        SearchSpace.simplex(2, lower, upper)


def test_bounds_must_pair_up() -> None:
    with pytest.raises(InvalidInputError, match="2 lower bounds and 3 upper ones"):
        SearchSpace("simplex", (0.0, 0.0), (1.0, 1.0, 1.0))


def test_the_baselines_are_those_of_their_papers() -> None:
    # Values of docs/glossary's sources: 1-sqrt as tabulated for n = 4 and 8, EMA by its recursion.
    assert one_minus_sqrt(4)[1].values == pytest.approx((0.5, 0.2071, 0.1589, 0.1340), abs=1e-4)
    assert one_minus_sqrt(8)[1].values[-1] == pytest.approx(0.065, abs=5e-4)
    average = 0.0
    for value in (1.0, 0.0, 0.0, 1.0):
        average = value if average == 0.0 else 0.2 * value + 0.8 * average
    assert ema(4)[1].values[0] + ema(4)[1].values[3] == pytest.approx(average)
    assert wma(3) == ("wma-3", MergeWeights.normalised([1 / 6, 2 / 6, 3 / 6]))


@pytest.mark.parametrize("size", [2, 3, 4, 8, 16])
def test_the_initial_design_measures_each_checkpoint_once(size: int) -> None:
    design = initial_design(size)
    vertices = [weights for weights in design.values() if 1.0 in weights.values]
    assert sorted(v.values.index(1.0) for v in vertices) == list(range(size))
    assert len(set(design.values())) == len(design)
    assert next(iter(design)) == "newest"


def test_a_pair_is_designed_in_three_passes() -> None:
    assert list(initial_design(2)) == ["newest", "previous", "uniform-2"]
