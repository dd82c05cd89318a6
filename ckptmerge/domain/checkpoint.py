"""Checkpoint: a run's weights at a step, and the manifest that says what is on disk."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import IncompatibleCheckpointsError

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
"""Bits an element takes, by safetensors dtype."""

MERGEABLE = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes whose elements are averaged; everything else is copied from one checkpoint."""

_DIFFERENCES_SHOWN = 20


@dataclass(frozen=True, slots=True, order=True)
class TensorSpec:
    """A tensor's name, dtype and shape, as its safetensors header gives them."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """How many bytes those numbers take."""
        return self.elements * BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor and where its bytes lie."""

    spec: TensorSpec
    file: str
    """Name of the file, relative to the checkpoint."""
    offset: int
    """First byte of the tensor, counted from the start of the file."""
    digest: Digest | None = None
    """SHA-256 of the tensor's bytes, once they have been read."""


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """One file of a checkpoint."""

    name: str
    size: int
    digest: Digest


Signature = tuple[TensorSpec, ...]
"""What must be equal for two checkpoints to merge: every tensor's name, dtype and shape."""


@dataclass(frozen=True)
class Manifest:
    """Everything a checkpoint holds: its tensors, and its weight and side files."""

    files: tuple[FileEntry, ...]
    tensors: tuple[TensorEntry, ...]

    @cached_property
    def digest(self) -> Digest:
        """The checkpoint digest: identity of these exact files.

        Raises:
            ValueError: the files have not been digested.
        """
        if not self.files:
            raise ValueError("the files of this manifest have not been digested")
        return Digest.of_json(
            [[f.name, f.size, str(f.digest)] for f in sorted(self.files)],
        )

    @cached_property
    def content(self) -> Digest:
        """The content digest: identity of the tensors, however they are sharded.

        Raises:
            ValueError: the tensors' bytes have not been digested.
        """
        rows: list[list[object]] = []
        for entry in sorted(self.tensors, key=lambda entry: entry.spec):
            if entry.digest is None:
                raise ValueError(f"tensor {entry.spec.name!r} has no digest yet")
            spec = entry.spec
            rows.append([spec.name, spec.dtype, list(spec.shape), str(entry.digest)])
        return Digest.of_json(rows)

    @cached_property
    def signature(self) -> Signature:
        """The tensors' names, dtypes and shapes, sorted by name."""
        return tuple(sorted(entry.spec for entry in self.tensors))

    @property
    def parameters(self) -> int:
        """How many numbers the floating-point tensors hold together."""
        return sum(e.spec.elements for e in self.tensors if e.spec.dtype in MERGEABLE)

    @property
    def bytes(self) -> int:
        """How many bytes the tensors take together."""
        return sum(entry.spec.bytes for entry in self.tensors)


@dataclass(frozen=True)
class Checkpoint:
    """A run's weights at a step."""

    label: str
    """What people call it: its path here, its id in a service."""
    step: int
    manifest: Manifest
    attempt: int = 1
    """Counts the times the run was rolled back to an earlier step and continued."""
    tokens: int | None = None


def require_one_model(labels: Sequence[str], signatures: Sequence[Signature]) -> None:
    """Check that all signatures are equal.

    Raises:
        IncompatibleCheckpointsError: two differ; the message names up to twenty differences.
    """
    first = {spec.name: spec for spec in signatures[0]}
    for label, signature in zip(labels[1:], signatures[1:], strict=True):
        differences = _differences(first, {spec.name: spec for spec in signature})
        if differences:
            shown = "\n  ".join(differences[:_DIFFERENCES_SHOWN])
            more = len(differences) - _DIFFERENCES_SHOWN
            raise IncompatibleCheckpointsError(
                f"{labels[0]} and {label} are not of one model; {len(differences)} tensors differ:"
                f"\n  {shown}" + (f"\n  … and {more} more" if more > 0 else "") + "\n"
                "Only checkpoints of one training run, with the same tensors, can be merged."
            )


def _differences(a: Mapping[str, TensorSpec], b: Mapping[str, TensorSpec]) -> list[str]:
    found = [f"{name}: missing in the second" for name in sorted(a.keys() - b.keys())]
    found += [f"{name}: missing in the first" for name in sorted(b.keys() - a.keys())]
    for name in sorted(a.keys() & b.keys()):
        left, right = a[name], b[name]
        if left.shape != right.shape:
            found.append(f"{name}: shape {list(left.shape)} against {list(right.shape)}")
        elif left.dtype != right.dtype:
            found.append(f"{name}: dtype {left.dtype} against {right.dtype}")
    vocabulary = [
        name for name in a.keys() & b.keys()
        if len(a[name].shape) == len(b[name].shape) == 2
        and a[name].shape[0] != b[name].shape[0]
        and a[name].shape[1] == b[name].shape[1]
        and ("embed" in name or "lm_head" in name or "wte" in name)
    ]  # fmt: skip
    if vocabulary:
        rows = a[vocabulary[0]].shape[0], b[vocabulary[0]].shape[0]
        found.insert(0, f"the vocabularies differ: {rows[0]} against {rows[1]} tokens")
    return found
