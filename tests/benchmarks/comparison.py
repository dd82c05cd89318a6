"""Two merges of the same checkpoints, number by number, and each against the exact sum."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

_AT_ONCE = 2**24
"""Numbers compared at a time."""

_CANCELS = 2**-8
"""A sum smaller than this share of its largest term has lost, in float32, digits that bfloat16
would show: how many steps apart two such sums are says nothing about either."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs, as shares of all numbers."""

    different: float
    steps: int
    """Most bfloat16 steps (ulp) between two numbers, where terms do not cancel."""
    ours_inexact: float
    """Numbers that are not the exact sum, rounded once."""
    theirs_inexact: float


def compare(
    parents: Sequence[Path], weights: Sequence[float], ours: Path, theirs: Path
) -> Comparison:
    """Compare two bfloat16 merges, each in one file."""
    count = different = steps = ours_inexact = theirs_inexact = 0
    for *values, own, other in _pieces([*parents, ours, theirs]):
        terms = [w * part.double() for w, part in zip(weights, values, strict=True)]
        exact = torch.stack(terms).sum(dim=0)
        largest = torch.stack(terms).abs().amax(dim=0)
        apart = (_ranks(own) - _ranks(other)).abs()
        count += len(own)
        different += int(apart.count_nonzero())
        steps = max(steps, int(apart[exact.abs() > _CANCELS * largest].max()))
        # By way of float32, as torch narrows: it rounds twice, but for one number in 65,536.
        ours_inexact += int((own != exact.to(torch.bfloat16)).sum())
        theirs_inexact += int((other != exact.to(torch.bfloat16)).sum())
    return Comparison(different / count, steps, ours_inexact / count, theirs_inexact / count)


def _pieces(folders: Sequence[Path]) -> Iterator[list[Tensor]]:
    """Yield the same stretch of the same tensor from every checkpoint."""
    with ExitStack() as stack:
        files: list[Any] = [
            stack.enter_context(safe_open(folder / "model.safetensors", "pt")) for folder in folders
        ]
        for name in files[0].keys():  # noqa: SIM118 - a safetensors file is no mapping
            tensors = [file.get_tensor(name).flatten() for file in files]
            yield from map(list, zip(*(t.split(_AT_ONCE) for t in tensors), strict=True))


def _ranks(values: Tensor) -> Tensor:
    """Number bfloat16 values in their order, so that neighbours differ by one; both zeros are 0.

    Raises:
        TypeError: the values are not bfloat16.
    """
    if values.dtype != torch.bfloat16:
        raise TypeError(f"expected bfloat16 in the output, found {values.dtype}")
    bits = values.view(torch.int16).to(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
