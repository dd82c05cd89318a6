"""Arithmetic v1: the weighted sum of checkpoints, the same bytes on every machine.

Per element, in order of the checkpoints: ``total = w_0 * x_0``, then ``total = total + w_j * x_j``,
each product and each sum rounded to float32 by itself, and one rounding (nearest, ties to even) to
the output dtype at the end. IEEE 754 fixes the result of each of these steps, so neither vector
width, nor threads, nor the cutting into blocks can change it. A fused multiply-add could
(``add_(alpha=)`` gives other bytes under AVX2 than without): products and sums are separate here.

A checkpoint whose weight is zero contributes no term at all. Adding ``0 * x`` would turn a result
of -0.0 into 0.0; without it, a vertex of the simplex returns its checkpoint bit for bit.

Float64 tensors take the same steps in float64.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from ckptmerge.domain.weights import MergeWeights

CPU_BLOCK = 2**16
"""Elements combined at a time: two float32 scratch blocks stay within a core's cache."""

CUDA_BLOCK = 2**26
"""Elements combined at a time on a GPU: enough to fill it, and half a gigabyte of scratch."""


class Scratch:
    """Working memory of ``combine`` on one device, kept between calls."""

    def __init__(self, device: torch.device | None = None, *, block: int | None = None) -> None:
        self.device = torch.device("cpu") if device is None else device
        if block is None:
            on_cpu = self.device.type == "cpu"
            block = CPU_BLOCK if on_cpu else CUDA_BLOCK
        self.block = block
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def of(self, purpose: str, dtype: torch.dtype, size: int) -> Tensor:
        """Return ``size`` uninitialised elements; the same memory each time for one purpose."""
        buffer = self._buffers.get((purpose, dtype))
        if buffer is None or len(buffer) < size:
            buffer = torch.empty(size, dtype=dtype, device=self.device)
            self._buffers[purpose, dtype] = buffer
        return buffer[:size]


def combine(
    parts: Sequence[Float[Tensor, " n"]],
    weights: MergeWeights,
    *,
    out: Float[Tensor, " n"],
    rounded_to: torch.dtype | None = None,
    scratch: Scratch | None = None,
) -> None:
    """Write the weighted sum of ``parts`` to ``out``.

    Args:
        parts: One flat tensor a checkpoint, oldest first, all of one floating-point dtype.
        weights: One number a checkpoint; rounded once to the dtype of the arithmetic.
        out: Takes the result; must not overlap the parts.
        rounded_to: Dtype to which the sum is rounded; that of ``out`` by default. Where they
            differ, ``out`` receives the rounded numbers in its own dtype.
        scratch: Working memory to reuse, on the parts' device.

    Raises:
        ValueError: there are not as many parts as weights.
    """
    scratch = Scratch(out.device) if scratch is None else scratch
    rounded_to = out.dtype if rounded_to is None else rounded_to
    exact = arithmetic_dtype(parts[0].dtype)
    terms = [
        (part, weight)
        for part, weight in zip(parts, rounded_weights(weights, exact), strict=True)
        if weight != 0
    ]
    in_place = out.dtype == rounded_to == exact
    for start in range(0, len(out), scratch.block):
        result = out[start : start + scratch.block]
        total = result if in_place else scratch.of("total", exact, len(result))
        term = scratch.of("term", exact, len(result))
        for index, (part, weight) in enumerate(terms):
            _scale(part[start : start + scratch.block], weight, total if index == 0 else term)
            if index:
                total.add_(term)
        if not in_place:
            _round(total, rounded_to, result, scratch)


@contextmanager
def one_thread() -> Iterator[None]:
    """Do arithmetic on the calling thread alone, whatever torch is set to.

    Threads wait for each other at the end of every operation on every block, and on a busy machine
    for the scheduler: beside readers and digests two threads took 98 processor seconds for a merge
    where one took 9, and .71 s for a candidate where one took .002 (two cores).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which tensors of ``dtype`` are multiplied and added."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def rounded_weights(weights: MergeWeights, dtype: torch.dtype) -> list[float]:
    """Return the weights rounded once to the dtype of the arithmetic."""
    return torch.tensor(weights.values, dtype=torch.float64).to(dtype).tolist()


def _scale(part: Tensor, weight: float, product: Tensor) -> None:
    if part.dtype == product.dtype:
        torch.mul(part, weight, out=product)
    else:
        # Widen first: a product in bfloat16 would round the weight to three digits.
        product.copy_(part).mul_(weight)


def _round(total: Tensor, dtype: torch.dtype, result: Tensor, scratch: Scratch) -> None:
    if total.dtype == torch.float64 and dtype not in {torch.float64, torch.float32}:
        total = _round_to_odd(total)
    if result.dtype == dtype:
        result.copy_(total)
    else:
        result.copy_(scratch.of("rounded", dtype, len(result)).copy_(total))


def _round_to_odd(wide: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Narrow float64 to float32 such that rounding the result again equals rounding once.

    Torch narrows float64 to 16 bits by way of float32, which rounds twice. Setting the last bit of
    every inexact float32 keeps the trace of what was cut off (Boldo and Melquiond, "Emulation of a
    FMA and correctly rounded sums", IEEE Transactions on Computers 57(4), 2008).
    """
    narrow = wide.to(torch.float32)
    back = narrow.to(torch.float64)
    bits = narrow.view(torch.int32)
    bits -= (back.abs() > wide.abs()).to(torch.int32)  # towards zero
    bits |= (back != wide).to(torch.int32)
    return narrow
