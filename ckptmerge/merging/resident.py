"""The resident window: checkpoints loaded once, merged in place for every candidate.

A search measures dozens of merges of the same checkpoints. They are read from the disk once;
after that a candidate costs one pass over memory and no byte written.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.weights import MergeWeights, Weights
from ckptmerge.errors import InvalidWeightsError
from ckptmerge.formats.tensors import TORCH_DTYPES, TensorSource, as_bytes
from ckptmerge.merging.combine import Scratch, combine, one_thread
from ckptmerge.merging.policy import TensorPlan, find_ties, plan_tensors, require_ties_kept

_ALIGNMENT = 64
"""Every tensor begins at a multiple of this many elements: matrix kernels may round differently
at another alignment, and a candidate's loss must not depend on the sizes of its neighbours."""

_STAGED = 64 * 2**20
"""Bytes of page-locked memory through which one checkpoint passes to a GPU."""

_READERS = 4


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a tensor lies in its pool."""

    plan: TensorPlan
    start: int
    stop: int


class _Pool:
    """All averaged tensors of one dtype, side by side: one flat tensor a checkpoint."""

    def __init__(
        self,
        plans: Sequence[TensorPlan],
        sources: Sequence[TensorSource],
        *,
        device: torch.device,
        compute_dtype: torch.dtype,
    ) -> None:
        self.slots = tuple(_slots(plans))
        size = _aligned(self.slots[-1].stop)
        dtype = TORCH_DTYPES[plans[0].spec.dtype]
        self.rounded_to = TORCH_DTYPES[plans[0].output.dtype]
        with ThreadPoolExecutor(min(len(sources), _READERS), "ckptmerge-load") as readers:
            self.parents = tuple(
                readers.map(lambda s: _load(s, self.slots, size, dtype, device), sources)
            )
        self.live = torch.zeros(size, dtype=compute_dtype, device=device)

    def views(self) -> dict[str, Tensor]:
        """Return the live tensors by name."""
        return {
            slot.plan.spec.name: self.live[slot.start : slot.stop].view(slot.plan.spec.shape)
            for slot in self.slots
        }

    def form(self, weights: Weights, scratch: Scratch) -> None:
        """Merge the parents into the live tensor."""
        for start, stop, values in self._spans(weights):
            combine(
                [parent[start:stop] for parent in self.parents],
                values,
                out=self.live[start:stop],
                rounded_to=self.rounded_to,
                scratch=scratch,
            )

    def _spans(self, weights: Weights) -> Iterator[tuple[int, int, MergeWeights]]:
        """Cut the pool where the weights change; a pass over a span beats one over each tensor."""
        if isinstance(weights, MergeWeights):
            yield 0, len(self.live), weights
            return
        start, current = 0, weights.for_tensor(self.slots[0].plan.spec.name)
        for slot in self.slots:
            values = weights.for_tensor(slot.plan.spec.name)
            if values != current:
                yield start, slot.start, current
                start, current = slot.start, values
        yield start, len(self.live), current


class ResidentWindow:
    """The checkpoints of a window in memory, and the candidate that is being looked at.

    ``tensors`` are views of memory that stays where it is: a model bound to them once sees every
    candidate that ``form`` makes. What ``form`` makes is, number by number, what ``merge`` would
    write with the same weights and dtype, in ``compute_dtype``. Memory: the checkpoints in their
    own dtype, and one model in ``compute_dtype``.

    Args:
        sources: The checkpoints, oldest first; not needed any more afterwards.
        device: Where they are kept and merged.
        dtype: Dtype to which candidates are rounded, as a merge's bytes would be.
        compute_dtype: Dtype of ``tensors``, in which the model is to run.

    Raises:
        InvalidInputError: there are no checkpoints, or a tensor cannot be merged.
        IncompatibleCheckpointsError: the checkpoints differ in names, shapes or dtypes.
        TruncatedFileError: a checkpoint was cut short meanwhile.
    """

    def __init__(
        self,
        sources: Sequence[TensorSource],
        *,
        device: torch.device,
        dtype: OutputDtype = "keep",
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        plans = plan_tensors(sources, dtype)
        self._size = len(sources)
        self._ties = find_ties(sources)
        self._scratch = Scratch(device)
        self._pools = tuple(
            _Pool(group, sources, device=device, compute_dtype=compute_dtype)
            for group in _by_dtype(plans)
        )
        tensors = {
            name: sources[-1].read(name).to(device)
            for name, plan in plans.items()
            if not plan.averaged
        }
        for pool in self._pools:
            tensors.update(pool.views())
        self.tensors: Mapping[str, Tensor] = {name: tensors[name] for name in plans}

    def __len__(self) -> int:
        return self._size

    @torch.no_grad()
    def form(self, weights: Weights) -> None:
        """Form the candidate with these weights in ``tensors``, in place; writes no byte to disk.

        Raises:
            InvalidWeightsError: there are not as many weights as checkpoints, or weights by group
                leave out a tensor or would part tied tensors.
        """
        if len(weights) != self._size:
            raise InvalidWeightsError(
                f"{len(weights)} merge weights for a window of {self._size} checkpoints"
            )
        require_ties_kept(self._ties, weights)
        with one_thread():
            for pool in self._pools:
                pool.form(weights, self._scratch)


def _by_dtype(plans: Mapping[str, TensorPlan]) -> list[list[TensorPlan]]:
    groups: dict[str, list[TensorPlan]] = {}
    for plan in plans.values():
        if plan.averaged:
            groups.setdefault(plan.spec.dtype, []).append(plan)
    return list(groups.values())


def _slots(plans: Sequence[TensorPlan]) -> Iterator[_Slot]:
    start = 0
    for plan in plans:
        yield _Slot(plan, start, start + plan.spec.elements)
        start = _aligned(start + plan.spec.elements)


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _load(
    source: TensorSource,
    slots: Sequence[_Slot],
    size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Read one checkpoint's tensors into one flat tensor on ``device``; zeros between them."""
    flat = torch.zeros(size, dtype=dtype, device=device)
    if device.type == "cpu":
        for slot in slots:
            source.read_into(slot.plan.spec.name, 0, as_bytes(flat[slot.start : slot.stop]))
        return flat
    # Copies from page-locked memory run at the speed of the bus.
    staged = torch.empty(_STAGED // dtype.itemsize, dtype=dtype, pin_memory=device.type == "cuda")
    for slot in slots:
        for start in range(slot.start, slot.stop, len(staged)):
            piece = staged[: min(len(staged), slot.stop - start)]
            source.read_into(
                slot.plan.spec.name, (start - slot.start) * dtype.itemsize, as_bytes(piece)
            )
            flat[start : start + len(piece)].copy_(piece)
    return flat
