"""Which tensors are averaged, which are copied, and which merges are refused."""

import pytest
import torch

from ckptmerge.domain.checkpoint import BITS, TensorSpec
from ckptmerge.domain.weights import GroupedWeights, MergeWeights, WeightGroup
from ckptmerge.errors import IncompatibleCheckpointsError, InvalidInputError, InvalidWeightsError
from ckptmerge.formats.tensors import MemorySource
from ckptmerge.merging.policy import find_ties, plan_tensor, plan_tensors, require_ties_kept


def grouped(pattern: str) -> GroupedWeights:
    return GroupedWeights(
        (
            WeightGroup("one", pattern, MergeWeights.of(0.2, 0.8)),
            WeightGroup("rest", ".*", MergeWeights.of(0.5, 0.5)),
        )
    )


def sources(**changes: torch.Tensor) -> list[MemorySource]:
    made = []
    for index in range(2):
        embedding = torch.arange(5000.0) + index
        tensors = {"embed": embedding, "head": embedding.clone(), "norm": torch.ones(8) + index}
        tensors |= {"bias.0": torch.zeros(4), "bias.1": torch.zeros(4)}
        made.append(MemorySource(tensors | changes, label=f"step-{index}"))
    return made


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_floats_are_averaged_and_the_rest_is_copied(dtype):
    if dtype.startswith("F8_"):
        with pytest.raises(InvalidInputError, match="together with their scales"):
            plan_tensor(TensorSpec("w", dtype, (2,)), "keep")
        return
    plan = plan_tensor(TensorSpec("w", dtype, (2,)), "keep")
    assert plan.averaged == (dtype in {"F64", "F32", "F16", "BF16"})
    assert plan.output == plan.spec


@pytest.mark.parametrize(("dtype", "name"), [("bf16", "BF16"), ("f16", "F16"), ("f32", "F32")])
def test_only_floats_take_the_output_dtype(dtype, name):
    assert plan_tensor(TensorSpec("w", "F64", (2,)), dtype).output.dtype == name
    assert plan_tensor(TensorSpec("w", "I64", (2,)), dtype).output.dtype == "I64"


def test_checkpoints_of_two_models_are_refused():
    other = MemorySource({"embed": torch.zeros(3)})
    with pytest.raises(IncompatibleCheckpointsError, match="embed: shape"):
        plan_tensors([sources()[0], other], "keep")
    with pytest.raises(InvalidInputError, match="no checkpoint"):
        plan_tensors([], "keep")


def test_one_tensor_stored_twice_is_found():
    assert find_ties(sources()) == (("embed", "head"),)


def test_a_difference_late_in_one_checkpoint_parts_them():
    made = sources()
    late = made[1].read("head")
    late[-1] += 1
    tensors = {name: made[1].read(name) for name in made[1].specs} | {"head": late}
    assert find_ties([made[0], MemorySource(tensors)]) == ()


def test_biases_that_never_left_zero_are_not_tied():
    require_ties_kept(find_ties(sources()), grouped(r"bias\.0"))


@pytest.mark.parametrize("pattern", ["embed", "head", "head|norm"])
def test_groups_that_part_a_tie_are_refused(pattern):
    with pytest.raises(InvalidWeightsError, match="one tensor stored twice"):
        require_ties_kept(find_ties(sources()), grouped(pattern))


def test_groups_that_keep_a_tie_pass():
    require_ties_kept(find_ties(sources()), grouped("embed|head"))
    require_ties_kept(find_ties(sources()), MergeWeights.of(0.2, 0.8))
