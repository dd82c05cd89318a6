"""The resident window: candidates in memory, equal to the bytes a merge would write."""

import builtins
import os

import pytest
import torch

from ckptmerge.domain.weights import GroupedWeights, MergeWeights, WeightGroup
from ckptmerge.errors import InvalidInputError, InvalidWeightsError
from ckptmerge.formats.tensors import MemorySink, MemorySource
from ckptmerge.merging.policy import plan_tensors
from ckptmerge.merging.resident import ResidentWindow
from ckptmerge.merging.stream import stream

CPU = torch.device("cpu")
SIZE = 3


def checkpoint(seed: int) -> MemorySource:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return MemorySource(
        {
            "embed": normal(40, 16).bfloat16(),
            "layers.0.w": normal(16, 15),
            "layers.0.b": normal(15),
            "layers.1.w": normal(7, 16).half(),
            "layers.1.b": normal(1),
            "norm": normal(16).double(),
            "scale": normal(()),
            "empty": torch.zeros(0, 4),
            "steps": torch.tensor([seed]),
        }
    )


@pytest.fixture(scope="module")
def sources():
    return [checkpoint(seed) for seed in range(SIZE)]


def merged(sources, weights, dtype="keep"):
    plans = plan_tensors(sources, dtype)
    sink = MemorySink([plan.output for plan in plans.values()])
    stream(sources, plans, weights, sink)
    return sink.tensors()


def same(window: ResidentWindow, wanted: dict[str, torch.Tensor]) -> None:
    assert list(window.tensors) == sorted(wanted)
    for name, tensor in wanted.items():
        live = window.tensors[name]
        up = tensor.to(live.dtype)
        assert live.shape == tensor.shape
        assert torch.equal(live, up), name
        if live.is_floating_point():
            assert torch.equal(live.signbit(), up.signbit()), name


def candidates(count: int) -> list[MergeWeights]:
    found = []
    for index in range(count):
        a, b = (index * 37 % 101) / 80 - 0.1, (index * 53 % 97) / 120 - 0.2
        found.append(MergeWeights.normalised([a, b, 1 - a - b]))
    return found


GROUPS = GroupedWeights(
    (
        WeightGroup("zero", r"layers\.0\..*", MergeWeights.of(0.1, 0.2, 0.7)),
        WeightGroup("bias", r".*\.b", MergeWeights.of(1.0, 0.0, 0.0)),
        WeightGroup("rest", ".*", MergeWeights.of(0.3, 0.3, 0.4)),
    )
)


@pytest.mark.parametrize("dtype", ["keep", "bf16", "f16", "f32"])
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16, torch.float64])
def test_a_candidate_is_what_a_merge_would_write(sources, dtype, compute):
    window = ResidentWindow(sources, device=CPU, dtype=dtype, compute_dtype=compute)
    for weights in (*candidates(3), MergeWeights.vertex(SIZE, 1), GROUPS):
        window.form(weights)
        same(window, merged(sources, weights, dtype))


def test_after_a_thousand_candidates_it_still_is(sources):
    window = ResidentWindow(sources, device=CPU, dtype="bf16")
    for weights in candidates(1000):
        window.form(weights)
    weights = candidates(1000)[-1]
    same(window, merged(sources, weights, "bf16"))
    window.form(GROUPS)
    same(window, merged(sources, GROUPS, "bf16"))


def test_candidates_appear_in_the_same_memory(sources):
    window = ResidentWindow(sources, device=CPU)
    before = {name: tensor.data_ptr() for name, tensor in window.tensors.items()}
    model = torch.nn.Linear(15, 16)
    model.weight.data = window.tensors["layers.0.w"]
    window.form(MergeWeights.uniform(SIZE))
    one = model.weight.detach().clone()
    window.form(MergeWeights.vertex(SIZE, 0))
    assert not torch.equal(model.weight, one)
    assert torch.equal(model.weight, sources[0].read("layers.0.w"))
    assert before == {name: tensor.data_ptr() for name, tensor in window.tensors.items()}


def test_forming_a_candidate_writes_no_file_and_reads_none(sources, monkeypatch):
    window = ResidentWindow(sources, device=CPU)

    def refuse(*_, **__):
        raise AssertionError("a file was touched")

    for name in ("open", "write", "pwrite", "preadv", "read"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(builtins, "open", refuse)
    window.form(MergeWeights.uniform(SIZE))


def test_tensors_start_at_aligned_addresses(sources):
    window = ResidentWindow(sources, device=CPU)
    floats = [t for t in window.tensors.values() if t.is_floating_point() and t.numel()]
    base = min(tensor.data_ptr() for tensor in floats)
    assert all((t.data_ptr() - base) % 64 == 0 for t in floats if t.dtype == torch.float32)


def test_what_is_not_averaged_comes_from_the_newest(sources):
    window = ResidentWindow(sources, device=CPU)
    window.form(MergeWeights.vertex(SIZE, 0))
    assert window.tensors["steps"].tolist() == [SIZE - 1]
    assert window.tensors["steps"].dtype == torch.int64


def test_a_window_does_not_need_its_sources_any_more(sources):
    own = [MemorySource({n: s.read(n) for n in s.specs}) for s in sources]
    window = ResidentWindow(own, device=CPU)
    for source in own:
        for tensor in source._tensors.values():
            tensor.zero_()
    window.form(MergeWeights.uniform(SIZE))
    same(window, merged(sources, MergeWeights.uniform(SIZE)))


def test_the_number_of_weights_must_be_right(sources):
    window = ResidentWindow(sources, device=CPU)
    assert len(window) == SIZE
    with pytest.raises(InvalidWeightsError, match="window of 3"):
        window.form(MergeWeights.of(0.5, 0.5))
    with pytest.raises(InvalidInputError, match="no checkpoint"):
        ResidentWindow([], device=CPU)


def test_groups_that_part_tied_tensors_are_refused():
    own = []
    for index in range(2):
        tied = torch.arange(4.0) + index
        own.append(MemorySource({"embed": tied, "head": tied}))
    groups = GroupedWeights(
        (
            WeightGroup("head", "head", MergeWeights.of(0.0, 1.0)),
            WeightGroup("rest", ".*", MergeWeights.of(0.5, 0.5)),
        )
    )
    with pytest.raises(InvalidWeightsError, match="one tensor stored twice"):
        ResidentWindow(own, device=CPU).form(groups)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["keep", "bf16", "f16", "f32"])
def test_a_gpu_forms_the_same_candidates(sources, dtype):
    window = ResidentWindow(sources, device=torch.device("cuda"), dtype=dtype)
    for weights in (*candidates(5), GROUPS):
        window.form(weights)
        wanted = merged(sources, weights, dtype)
        for name, tensor in wanted.items():
            live = window.tensors[name].cpu()
            assert torch.equal(live, tensor.to(live.dtype)), name
