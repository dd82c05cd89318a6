"""Merge weights that cannot be merge weights cannot be built."""

import math

import pytest

from ckptmerge.domain.weights import GroupedWeights, MergeWeights, WeightGroup
from ckptmerge.errors import InvalidWeightsError


@pytest.mark.parametrize("values", [(), (0.5, 0.6), (math.nan, 1.0), (math.inf, -math.inf)])
def test_weights_that_do_not_sum_to_one_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(InvalidWeightsError):
        MergeWeights(values)


def test_extrapolating_weights_are_legal() -> None:
    assert MergeWeights.of(-0.2, 1.2).values == (-0.2, 1.2)


def test_the_sum_may_be_off_by_rounding_alone() -> None:
    MergeWeights((0.5, 0.5 + 9e-10))
    with pytest.raises(InvalidWeightsError, match="sum to 1"):
        MergeWeights((0.5, 0.5 + 2e-9))


def test_normalising_removes_rounding_and_nothing_else() -> None:
    assert math.fsum(MergeWeights.normalised([0.1] * 10).values) == pytest.approx(1, abs=1e-15)
    with pytest.raises(InvalidWeightsError):
        MergeWeights.normalised([0.5, 0.4])


def test_a_uniform_average_weighs_the_last_checkpoints_alike() -> None:
    assert MergeWeights.uniform(4, 2).values == (0, 0, 0.5, 0.5)
    with pytest.raises(InvalidWeightsError, match="last 5 of 4"):
        MergeWeights.uniform(4, 5)


def test_the_first_matching_group_decides() -> None:
    attention = WeightGroup("attention", r".*attn.*", MergeWeights.of(0.2, 0.8))
    rest = WeightGroup("rest", ".*", MergeWeights.of(0.5, 0.5))
    weights = GroupedWeights((attention, rest))
    assert weights.for_tensor("layers.0.attn.q") is attention.weights
    assert weights.for_tensor("layers.0.mlp.up") is rest.weights


def test_a_tensor_without_a_group_is_named() -> None:
    weights = GroupedWeights((WeightGroup("a", "a.*", MergeWeights.of(1.0)),))
    with pytest.raises(InvalidWeightsError, match=r"'embed'.*'\.\*'"):
        weights.for_tensor("embed")


@pytest.mark.parametrize(
    "groups",
    [
        (),
        (
            WeightGroup("a", "a", MergeWeights.of(1.0)),
            WeightGroup("a", "b", MergeWeights.of(1.0)),
        ),
        (
            WeightGroup("a", "a", MergeWeights.of(1.0)),
            WeightGroup("b", "b", MergeWeights.of(0.5, 0.5)),
        ),
    ],
)
def test_groups_that_contradict_each_other_are_refused(groups: tuple[WeightGroup, ...]) -> None:
    with pytest.raises(InvalidWeightsError):
        GroupedWeights(groups)


def test_a_pattern_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(InvalidWeightsError, match="regular expression"):
        WeightGroup("a", "(", MergeWeights.of(1.0))
