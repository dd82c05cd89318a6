"""A merge from files to a folder, in bounded memory and at about the speed of the disk."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from ckptmerge.domain.artifact import Artifact
from ckptmerge.domain.checkpoint import BITS, TensorSpec
from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.weights import MergeWeights, Weights
from ckptmerge.errors import InvalidInputError
from ckptmerge.formats.inspection import BLOCK
from ckptmerge.formats.side_files import read_side_files
from ckptmerge.formats.sink import FolderSink
from ckptmerge.formats.tensors import TORCH_DTYPES, TensorSink, TensorSource, as_bytes
from ckptmerge.merging.combine import (
    Scratch,
    arithmetic_dtype,
    combine,
    one_thread,
    rounded_weights,
)
from ckptmerge.merging.policy import TensorPlan, find_ties, plan_tensors, require_ties_kept

READ_AHEAD = 96 * 2**20
"""Bytes of input that may lie in memory, over all checkpoints."""

_BUFFERS = 3
"""Buffers a checkpoint: one being combined while two are read."""

_READERS = 8


@dataclass(frozen=True, slots=True)
class _Block:
    """A piece of one tensor, and which checkpoints it takes."""

    plan: TensorPlan
    start: int
    """First element."""
    elements: int
    used: tuple[int, ...]
    """Indices of the checkpoints that are read."""
    weights: MergeWeights | None
    """Those checkpoints' weights; None where the one tensor is copied."""


def merge(
    sources: Sequence[TensorSource],
    recipe: Recipe,
    out: Path,
    *,
    side_files: Path,
    extra_files: Mapping[str, bytes] = MappingProxyType({}),
    on_bytes: Callable[[int], None] | None = None,
) -> Artifact:
    """Write the merge of ``sources`` to the folder ``out``, or leave nothing there.

    The same parents and recipe give the same bytes on every machine. Memory stays within about
    a quarter of a gigabyte, whatever the size and number of the checkpoints.

    Args:
        sources: One checkpoint for each parent of the recipe, in its order.
        recipe: Weights, output dtype and shard size; it is written into every weight file.
        out: The folder to make; it must not exist.
        side_files: The folder whose configuration, tokenizer and licence go with the merge.
        extra_files: More files to lay beside the model; they are no part of its digest.
        on_bytes: Told how many more bytes of the merge have been handed to the disk.

    Returns:
        The artifact; ``read_manifest(out)`` gives the same manifest, with tensors digested.

    Raises:
        InvalidInputError: there are not as many sources as parents, or a tensor cannot be merged.
        IncompatibleCheckpointsError: the checkpoints differ in names, shapes or dtypes.
        InvalidWeightsError: weights by group leave out a tensor, or would part tied tensors.
        CheckpointFormatError: a checkpoint was written to meanwhile.
        TruncatedFileError: a checkpoint was cut short meanwhile.
        NonFiniteTensorError: a merged tensor holds NaN or infinity, be it by overflow.
        OutputExistsError: something stands at ``out``.
        OutOfSpaceError: the disk cannot hold the merge.
    """
    if len(sources) != len(recipe.parents):
        raise InvalidInputError(
            f"the recipe has {len(recipe.parents)} parents, {len(sources)} checkpoints were given"
        )
    plans = plan_tensors(sources, recipe.dtype)
    beside = read_side_files(side_files, recipe.dtype)
    outputs = [plan.output for plan in plans.values()]
    metadata = recipe.as_metadata()
    with FolderSink(out, outputs, metadata=metadata, shard_size=recipe.shard_size) as sink:
        stream(sources, plans, recipe.weights, sink, on_bytes=on_bytes)
        for source in sources:
            source.require_unchanged()
        return Artifact(recipe, sink.publish(beside, extra_files))


def stream(
    sources: Sequence[TensorSource],
    plans: Mapping[str, TensorPlan],
    weights: Weights,
    sink: TensorSink,
    *,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Combine tensor by tensor, block by block, into ``sink``, in the sink's order.

    Reading, arithmetic and whatever the sink does happen at the same time.

    Raises:
        InvalidWeightsError: weights by group leave out a tensor, or would part tied tensors.
        TruncatedFileError: a checkpoint was cut short meanwhile.
    """
    if not isinstance(weights, MergeWeights):
        require_ties_kept(find_ties(sources), weights)
    ordered = [plans[spec.name] for spec in sink.order]
    scratch = Scratch()
    pieces = _blocks(ordered, weights, len(sources))
    with one_thread(), closing(_read_ahead(sources, pieces)) as blocks:
        for block, parts in blocks:
            view = sink.lend(block.elements * _width(block.plan.output))
            if block.weights is None:
                view[:] = parts[0]
            elif block.elements:
                dtype = TORCH_DTYPES[block.plan.spec.dtype]
                combine(
                    [torch.frombuffer(part, dtype=dtype) for part in parts],
                    block.weights,
                    out=torch.frombuffer(view, dtype=TORCH_DTYPES[block.plan.output.dtype]),
                    scratch=scratch,
                )
            sink.write(block.plan.output.name, view)
            if on_bytes:
                on_bytes(len(view))


def _blocks(plans: Sequence[TensorPlan], weights: Weights, size: int) -> Iterator[_Block]:
    """Cut tensors into pieces of whole elements; an empty tensor is one empty piece."""
    for plan in plans:
        used, terms = _terms(plan, weights, size)
        elements = _block_bytes(size) // max(_width(plan.spec), _width(plan.output))
        for start in range(0, max(plan.spec.elements, 1), elements):
            yield _Block(plan, start, min(elements, plan.spec.elements - start), used, terms)


def _terms(
    plan: TensorPlan, weights: Weights, size: int
) -> tuple[tuple[int, ...], MergeWeights | None]:
    """Say which checkpoints a tensor takes; one without weight is not even read."""
    if not plan.averaged:
        return (size - 1,), None
    values = weights.for_tensor(plan.spec.name)
    rounded = rounded_weights(values, arithmetic_dtype(TORCH_DTYPES[plan.spec.dtype]))
    used = tuple(index for index, weight in enumerate(rounded) if weight != 0)
    return used, MergeWeights(tuple(values.values[index] for index in used))


def _width(spec: TensorSpec) -> int:
    return BITS[spec.dtype] // 8


def _block_bytes(sources: int) -> int:
    return max(min(BLOCK, READ_AHEAD // (_BUFFERS * sources)) // 4096, 1) * 4096


def _buffer(size: int) -> memoryview:
    # Not a bytearray, whose every page is written with zeros before anything is read.
    return as_bytes(torch.empty(size, dtype=torch.uint8))


def _read_ahead(
    sources: Sequence[TensorSource], blocks: Iterator[_Block]
) -> Generator[tuple[_Block, list[memoryview]]]:
    """Read each block from the checkpoints it takes; a buffer is good until the next block."""
    size = _block_bytes(len(sources))
    free = deque([_buffer(size) for _ in sources] for _ in range(_BUFFERS))
    reading: deque[tuple[_Block, list[memoryview], list[Future[None]]]] = deque()

    def arrived() -> tuple[_Block, list[memoryview]]:
        block, buffers, futures = reading.popleft()
        for future in futures:
            future.result()
        free.append(buffers)
        length = block.elements * _width(block.plan.spec)
        return block, [buffer[:length] for buffer in buffers[: len(block.used)]]

    with ThreadPoolExecutor(min(len(sources), _READERS), "ckptmerge-read") as readers:
        for block in blocks:
            buffers, spec = free.popleft(), block.plan.spec
            start, length = block.start * _width(spec), block.elements * _width(spec)
            futures = [
                readers.submit(sources[index].read_into, spec.name, start, buffer[:length])
                for index, buffer in zip(block.used, buffers, strict=False)
            ]
            reading.append((block, buffers, futures))
            if not free:
                yield arrived()
        while reading:
            yield arrived()
