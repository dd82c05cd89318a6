"""The seam between files and arithmetic: where tensors come from and where they go."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from ckptmerge.domain.checkpoint import TensorSpec

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
"""Torch's dtypes by their names in safetensors."""

_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


@runtime_checkable
class TensorSource(Protocol):
    """One checkpoint's tensors, by name, however they are stored."""

    @property
    def label(self) -> str:
        """What people call the checkpoint; for messages."""
        ...

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Every tensor by its name, sorted by name."""
        ...

    def read_into(self, name: str, start: int, into: memoryview) -> None:
        """Fill ``into`` with the tensor's bytes from ``start`` on; safe from several threads.

        Raises:
            KeyError: there is no such tensor.
            TruncatedFileError: the bytes are no longer there.
        """
        ...

    def read(self, name: str) -> torch.Tensor:
        """Return a whole tensor in memory of its own.

        Raises:
            KeyError: there is no such tensor.
            TruncatedFileError: the bytes are no longer there.
        """
        ...

    def require_unchanged(self) -> None:
        """Check that what was read is still what is stored.

        Raises:
            CheckpointFormatError: a file was written to since the source was opened.
        """
        ...


@runtime_checkable
class TensorSink(Protocol):
    """A model being written, its tensors in the sink's own order, block by block."""

    @property
    def order(self) -> Sequence[TensorSpec]:
        """The tensors in the order in which their bytes must come."""
        ...

    def lend(self, size: int) -> memoryview:
        """Return a writable buffer of ``size`` bytes; waits until one is free."""
        ...

    def write(self, name: str, view: memoryview) -> None:
        """Take the next bytes, which belong to tensor ``name``.

        Args:
            name: The tensor.
            view: The buffer lent last, filled; its lender may not touch it afterwards.

        Raises:
            ValueError: it is not this tensor's turn, or the bytes go past its end.
        """
        ...


class MemorySource:
    """A checkpoint that lives in memory."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], label: str = "memory") -> None:
        self.label = label
        self._tensors = {name: tensors[name].detach().contiguous() for name in sorted(tensors)}
        self.specs: Mapping[str, TensorSpec] = {
            name: spec_of(name, tensor) for name, tensor in self._tensors.items()
        }

    def read_into(self, name: str, start: int, into: memoryview) -> None:
        """Copy bytes of a tensor."""
        into[:] = as_bytes(self._tensors[name])[start : start + len(into)]

    def read(self, name: str) -> torch.Tensor:
        """Return a copy of a tensor."""
        return self._tensors[name].clone()

    def require_unchanged(self) -> None:
        """Do nothing: nobody else can reach these tensors."""


class MemorySink:
    """A model that is written to memory, tensors sorted by name."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self.order: Sequence[TensorSpec] = tuple(sorted(specs))
        self._written: dict[str, bytearray] = {}
        self._turn = 0

    def lend(self, size: int) -> memoryview:
        """Return a new buffer."""
        return memoryview(bytearray(size))

    def write(self, name: str, view: memoryview) -> None:
        """Append to a tensor.

        Raises:
            ValueError: it is not this tensor's turn, or the bytes go past its end.
        """
        spec = self.order[self._turn]
        content = self._written.setdefault(spec.name, bytearray())
        if name != spec.name or len(content) + len(view) > spec.bytes:
            raise ValueError(f"{len(view)} bytes of {name!r} came when {spec.name!r} was due")
        content += view
        self._turn += len(content) == spec.bytes

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what was written, by name."""
        tensors = {spec.name: empty_tensor(spec) for spec in self.order}
        for name, content in self._written.items():
            as_bytes(tensors[name])[:] = content
        return tensors


def spec_of(name: str, tensor: torch.Tensor) -> TensorSpec:
    """Describe a tensor as a safetensors header would.

    Raises:
        KeyError: safetensors, or this library, has no name for its dtype.
    """
    return TensorSpec(name, _NAMES[tensor.dtype], tuple(tensor.shape))


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor in main memory, shared with it."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def empty_tensor(spec: TensorSpec) -> torch.Tensor:
    """Return an uninitialised tensor in main memory."""
    return torch.empty(spec.shape, dtype=TORCH_DTYPES[spec.dtype])
