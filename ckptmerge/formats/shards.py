"""Shards: the weight files of a model, how tensors spread over them and how one is written."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ckptmerge.domain.checkpoint import BITS, MERGEABLE, FileEntry, TensorEntry, TensorSpec
from ckptmerge.formats.header import HARD_HEADER_LIMIT, encode_header, parse_header
from ckptmerge.formats.inspection import Inspection
from ckptmerge.formats.manifest import WEIGHTS
from ckptmerge.formats.output_file import OutputFile


@dataclass(frozen=True, slots=True)
class Shard:
    """One weight file: its name, and its tensors in the order of their bytes."""

    name: str
    specs: tuple[TensorSpec, ...]


def plan_shards(specs: Sequence[TensorSpec], shard_size: int) -> tuple[Shard, ...]:
    """Distribute tensors over weight files of at most ``shard_size`` bytes of tensors.

    Greedy in the order of names; a tensor larger than the limit gets a file of its own. Within a
    file wider dtypes come first, then names, as safetensors itself writes: every tensor is then
    aligned to its own width, which readers that map the file rely on.
    """
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in sorted(specs):
        if groups[-1] and filled + spec.bytes > shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(spec)
        filled += spec.bytes
    count = len(groups)
    return tuple(
        Shard(
            WEIGHTS if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors",
            tuple(sorted(group, key=lambda spec: (-BITS[spec.dtype], spec.name))),
        )
        for number, group in enumerate(groups, start=1)
    )


def index_of(tensors: Sequence[TensorEntry]) -> bytes:
    """Write the index as transformers does: sizes, then the file of each tensor."""
    index = {
        "metadata": {
            "total_parameters": sum(e.spec.elements for e in tensors if e.spec.dtype in MERGEABLE),
            "total_size": sum(entry.spec.bytes for entry in tensors),
        },
        "weight_map": {e.spec.name: e.file for e in sorted(tensors, key=lambda e: e.spec)},
    }
    return (json.dumps(index, indent=2) + "\n").encode()


class ShardWriter:
    """Writes one weight file: header first, then its tensors, digested as they pass.

    Raises:
        OSError: the disk is full or failing; whatever has not been reported yet is by ``finish``.
    """

    def __init__(self, path: Path, shard: Shard, metadata: Mapping[str, str]) -> None:
        header = encode_header(shard.specs, metadata)
        size = len(header) + sum(spec.bytes for spec in shard.specs)
        self._entries = parse_header(header, size, file=shard.name, limit=HARD_HEADER_LIMIT).tensors
        self._waiting = deque(shard.specs)
        self._filled = 0
        with ExitStack() as opened:
            self._file = opened.enter_context(OutputFile(path, size))
            self._inspection = opened.enter_context(
                # A merge is known by its files; its tensors' digests would cost as much again.
                Inspection(shard.name, header, contents=False)
            )
            self._writer = opened.enter_context(ThreadPoolExecutor(1, "ckptmerge-write"))
            self._file.write(memoryview(header))
            self._opened = opened.pop_all()

    @property
    def turn(self) -> str:
        """Name of the tensor whose bytes come next."""
        return self._waiting[0].name

    @property
    def full(self) -> bool:
        """Whether all tensors have been written."""
        return not self._waiting

    def lend(self, size: int) -> memoryview:
        """Return a writable buffer of ``size`` bytes; waits until one is free."""
        return self._inspection.lend(size)

    def write(self, name: str, view: memoryview) -> None:
        """Take the next bytes, which belong to tensor ``name``.

        Raises:
            ValueError: it is not this tensor's turn, or the bytes go past its end.
        """
        spec = self._waiting[0]
        if name != spec.name or self._filled + len(view) > spec.bytes:
            raise ValueError(f"{len(view)} bytes of {name!r} came when {spec.name!r} was due")
        written = self._writer.submit(self._file.write, view)
        self._inspection.feed(spec, view, written)
        self._filled += len(view)
        if self._filled == spec.bytes:
            self._waiting.popleft()
            self._filled = 0

    def finish(self) -> tuple[FileEntry, tuple[TensorEntry, ...]]:
        """Sync and close the file; return its entry and its tensors' entries.

        Raises:
            NonFiniteTensorError: a tensor that was written holds NaN or infinity.
        """
        tensors = self._inspection.finish(self._entries)
        self._file.sync()
        self.close()
        return self._inspection.identity, tensors

    def close(self) -> None:
        """Stop the threads and close the file, complete or not."""
        self._opened.close()
