"""Policy: what a merge does with each tensor, and what it refuses to do.

Floating-point tensors are averaged. Everything else (token counters, masks) is copied from the
newest checkpoint, always: a recipe names no other, and must be enough to rebuild the bytes.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptmerge.domain.checkpoint import MERGEABLE, TensorSpec, require_one_model
from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.weights import Weights
from ckptmerge.errors import InvalidInputError, InvalidWeightsError
from ckptmerge.formats.tensors import TensorSource

_OUTPUT = {"bf16": "BF16", "f16": "F16", "f32": "F32"}

_HEAD = 4096
_READ_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """What becomes of one tensor."""

    spec: TensorSpec
    """As it stands in the checkpoints."""
    output: TensorSpec
    """As it stands in the merge."""
    averaged: bool
    """Averaged over the checkpoints, or copied from the newest."""


def plan_tensors(sources: Sequence[TensorSource], dtype: OutputDtype) -> Mapping[str, TensorPlan]:
    """Decide what becomes of each tensor; by name, sorted.

    Raises:
        IncompatibleCheckpointsError: the checkpoints differ in names, shapes or dtypes.
        InvalidInputError: there are no checkpoints, or a tensor is of eight-bit floats.
    """
    if not sources:
        raise InvalidInputError("there is no checkpoint to merge; give at least one")
    require_one_model(
        [source.label for source in sources], [tuple(source.specs.values()) for source in sources]
    )
    return {spec.name: plan_tensor(spec, dtype) for spec in sources[0].specs.values()}


def plan_tensor(spec: TensorSpec, dtype: OutputDtype) -> TensorPlan:
    """Decide what becomes of one tensor.

    Raises:
        InvalidInputError: the tensor is of eight-bit floats, whose scales lie in other tensors.
    """
    if spec.dtype.startswith("F8_"):
        raise InvalidInputError(
            f"tensor {spec.name!r} is {spec.dtype}: such numbers mean something only together "
            "with their scales, so their average means nothing; merge the checkpoints in the "
            "precision they are trained in, and quantise the merge"
        )
    averaged = spec.dtype in MERGEABLE
    output = replace(spec, dtype=_OUTPUT[dtype]) if averaged and dtype != "keep" else spec
    return TensorPlan(spec, output, averaged)


def find_ties(sources: Sequence[TensorSource]) -> tuple[tuple[str, ...], ...]:
    """Return the sets of averaged tensors that are one tensor stored several times.

    Tied weights (an output layer that is the embedding) are usually left out of the files, but
    some writers store both. Tensors count as tied when their bytes are equal in every checkpoint
    and change between them: biases that stay zero for the whole run are equal, not tied.
    """
    floats = [name for name, spec in sources[0].specs.items() if spec.dtype in MERGEABLE]
    found: list[tuple[str, ...]] = []
    for candidates in _alike(floats, lambda name: _heads(sources, name)).values():
        for contents, names in _alike(candidates, lambda name: _contents(sources, name)).items():
            if len(set(contents)) > 1:
                found.append(tuple(names))
    return tuple(found)


def require_ties_kept(ties: Sequence[Sequence[str]], weights: Weights) -> None:
    """Check that tensors which are tied get the same merge weights.

    Raises:
        InvalidWeightsError: two of them fall into groups with different weights.
    """
    for first, *others in ties:
        for other in others:
            if weights.for_tensor(first) != weights.for_tensor(other):
                raise InvalidWeightsError(
                    f"{first!r} and {other!r} are one tensor stored twice, and their groups weigh "
                    "the checkpoints differently; put both into the same group"
                )


def _alike(
    names: Sequence[str], fingerprint: Callable[[str], tuple[Hashable, ...]]
) -> Mapping[tuple[Hashable, ...], Sequence[str]]:
    """Group names by fingerprint; those that are alone are left out."""
    groups: defaultdict[tuple[Hashable, ...], list[str]] = defaultdict(list)
    for name in names:
        groups[fingerprint(name)].append(name)
    return {key: group for key, group in groups.items() if len(group) > 1}


def _heads(sources: Sequence[TensorSource], name: str) -> tuple[Hashable, ...]:
    """Tell most tensors apart at the price of one small read a checkpoint."""
    spec = sources[0].specs[name]
    head = bytearray(min(_HEAD, spec.bytes))
    read: list[bytes] = []
    for source in sources:
        source.read_into(name, 0, memoryview(head))
        read.append(bytes(head))
    return spec.dtype, spec.shape, tuple(read)


def _contents(sources: Sequence[TensorSource], name: str) -> tuple[bytes, ...]:
    """Return the SHA-256 of a tensor in each checkpoint."""
    return tuple(_content(source, name) for source in sources)


def _content(source: TensorSource, name: str) -> bytes:
    size = source.specs[name].bytes
    block = memoryview(bytearray(min(_READ_AT_ONCE, size)))
    content = hashlib.sha256()
    for start in range(0, size, _READ_AT_ONCE):
        view = block[: size - start]
        source.read_into(name, start, view)
        content.update(view)
    return content.digest()
