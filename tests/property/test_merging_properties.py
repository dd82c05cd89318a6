"""Properties that a merge has for all weights, all numbers and all shapes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptmerge.domain.weights import GroupedWeights, MergeWeights, WeightGroup
from ckptmerge.formats.tensors import MemorySink, MemorySource, as_bytes
from ckptmerge.merging.combine import Scratch, combine
from ckptmerge.merging.policy import plan_tensors
from ckptmerge.merging.resident import ResidentWindow
from ckptmerge.merging.stream import stream

FAST = settings(deadline=None, max_examples=60)
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def flat(dtype: torch.dtype, size: int) -> st.SearchStrategy[torch.Tensor]:
    """Every finite bit pattern of a dtype: denormals and both zeros too."""
    bits = {8: np.uint64, 4: np.uint32, 2: np.uint16}[dtype.itemsize]
    patterns = st.lists(st.integers(0, 2 ** (8 * dtype.itemsize) - 1), min_size=size, max_size=size)

    def tensor(values: list[int]) -> torch.Tensor:
        numbers = torch.from_numpy(np.array(values, bits).view(np.uint8).copy()).view(dtype)
        return torch.where(numbers.isfinite(), numbers, torch.tensor(-0.0, dtype=dtype))

    return patterns.map(tensor)


@st.composite
def windows(draw: st.DrawFn, dtypes=DTYPES) -> list[torch.Tensor]:
    dtype = draw(st.sampled_from(dtypes))
    size, count = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    return [draw(flat(dtype, size)) for _ in range(count)]


@st.composite
def weights(draw: st.DrawFn, size: int) -> MergeWeights:
    free = [draw(st.floats(-1, 1.5, allow_subnormal=False)) for _ in range(size - 1)]
    return MergeWeights.normalised([*free, 1 - sum(free)])


def merged(parts, by, dtype=None, **kwargs) -> torch.Tensor:
    out = torch.empty_like(parts[0], dtype=dtype)
    combine(parts, by, out=out, **kwargs)
    return out


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return bytes(as_bytes(one)) == bytes(as_bytes(two))


@FAST
@given(parts=windows(), data=st.data())
def test_a_vertex_returns_that_checkpoint_bit_for_bit(parts, data):
    index = data.draw(st.integers(0, len(parts) - 1))
    assert same(merged(parts, MergeWeights.vertex(len(parts), index)), parts[index])


@FAST
@given(parts=windows(), data=st.data(), block=st.integers(1, 5))
def test_blocks_change_nothing(parts, data, block):
    by = data.draw(weights(len(parts)))
    assert same(merged(parts, by), merged(parts, by, scratch=Scratch(block=block)))


@FAST
@given(parts=windows([torch.float32, torch.float16, torch.bfloat16]), data=st.data())
def test_the_result_is_near_the_exact_sum(parts, data):
    """Within one rounding for each product and sum, by the sizes of the terms."""
    by = data.draw(weights(len(parts)))
    terms = [p.double() * w for p, w in zip(parts, by.values, strict=True)]
    exact, size = sum(terms), sum(term.abs() for term in terms)
    found = merged(parts, by, torch.float32).double()
    error = (found - exact).abs()
    bound = size * 2.0**-23 * (len(parts) + 1) + 1e-44 * len(parts)
    overflow = size > torch.finfo(torch.float32).max / 2
    assert bool(((error <= bound) | overflow).all())


@FAST
@given(parts=windows([torch.float32, torch.float16, torch.bfloat16]), data=st.data())
def test_two_checkpoints_may_change_places(parts, data):
    """A sum of two is the same both ways round; of more it is not, and a recipe keeps order."""
    parts = parts[:2]
    by = data.draw(weights(len(parts)))
    swapped = MergeWeights(tuple(reversed(by.values)))
    one, two = merged(parts, by), merged(parts[::-1], swapped)
    assert bool(((one == two) | (one.isnan() & two.isnan())).all())


@FAST
@given(parts=windows([torch.float64]), dtype=st.sampled_from([torch.float16, torch.bfloat16]))
def test_narrowing_float64_rounds_to_a_nearest_neighbour(parts, dtype):
    """No neighbour of the result lies nearer: what rounding twice would get wrong."""
    scaled = torch.ldexp(torch.frexp(parts[0])[0], torch.tensor(3))
    found = merged([scaled], MergeWeights.of(1.0), dtype)
    steps = found.view(torch.int16)
    error = (found.double() - scaled).abs()
    for step in (-1, 1):
        neighbour = (steps + step).view(dtype).double()
        assert bool(((neighbour - scaled).abs() >= error)[neighbour.isfinite()].all())


@st.composite
def models(draw: st.DrawFn) -> list[MemorySource]:
    count = draw(st.integers(1, 4))
    shapes = draw(
        st.dictionaries(
            st.sampled_from(["a.w", "a.b", "b.w", "b.b", "c"]),
            st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=2)),
            min_size=1,
        )
    )
    seeds = st.integers(0, 2**31)
    sources = []
    for _ in range(count):
        generator = torch.Generator().manual_seed(draw(seeds))
        sources.append(
            MemorySource(
                {n: torch.randn(s, generator=generator).to(d) for n, (d, s) in shapes.items()}
            )
        )
    return sources


@settings(FAST, max_examples=25)
@given(sources=models(), dtype=st.sampled_from(["keep", "bf16", "f16", "f32"]), data=st.data())
def test_a_candidate_in_memory_is_the_merge_on_disk(sources, dtype, data):
    size = len(sources)
    groups = GroupedWeights(
        (
            WeightGroup("a", r"a\..*", data.draw(weights(size))),
            WeightGroup("b", r".*\.b", data.draw(weights(size))),
            WeightGroup("rest", ".*", data.draw(weights(size))),
        )
    )
    window = ResidentWindow(sources, device=torch.device("cpu"), dtype=dtype)
    plans = plan_tensors(sources, dtype)
    for by in (data.draw(weights(size)), groups):
        sink = MemorySink([plan.output for plan in plans.values()])
        stream(sources, plans, by, sink)
        window.form(by)
        for name, tensor in sink.tensors().items():
            assert same(window.tensors[name].contiguous(), tensor.float())
