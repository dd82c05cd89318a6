"""Manifest of a path: which files make the model, what they hold, and their digests; no torch."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ckptmerge.domain.checkpoint import FileEntry, Manifest, TensorEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats.header import (
    HARD_HEADER_LIMIT,
    TENSOR_LIMIT,
    parse_header,
    read_exactly,
    read_raw_header,
)
from ckptmerge.formats.inspection import BLOCK, Inspection
from ckptmerge.formats.json_text import outline
from ckptmerge.formats.side_files import is_side_file, list_side_files

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_SUFFIX = ".safetensors"
_INDEX_SUFFIX = ".safetensors.index.json"
_INDEX_LEVELS = 3
_INDEX_MEMBERS = 5 * TENSOR_LIMIT
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".distcp", ".gguf", ".h5", ".msgpack")


def is_model_file(name: str) -> bool:
    """Whether a base name is one that a file of a checkpoint can have: weights, index, side file.

    Nothing else is taken in: what is not read is not looked at either, and might be loaded one day.
    """
    return is_side_file(name) or (
        name.endswith((_SUFFIX, _INDEX_SUFFIX)) and not name.startswith(".")
    )


def require_model_files(names: Sequence[str]) -> None:
    """Check the names of the files that are to make a checkpoint.

    Raises:
        CheckpointFormatError: one is given twice, or is none of a safetensors checkpoint.
    """
    for name in names:
        if not is_model_file(name):
            raise CheckpointFormatError(
                f"{name} is no file of a safetensors checkpoint; leave it out: weights are "
                "*.safetensors, and beside them are configuration and tokenizer"
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise CheckpointFormatError(f"{twice[0]} is given twice; name each file once")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which files of a folder make a model."""

    folder: Path
    weights: tuple[str, ...]
    """Base names of the safetensors files, sorted."""
    index: str | None = None
    """Base name of the index that says which tensor lies in which file; None for a single file."""
    homes: Mapping[str, str] | None = None
    """The index itself: tensor name to file name."""
    side: tuple[str, ...] = ()
    """Base names of the side files, sorted."""


def find_layout(path: Path) -> Layout:
    """Find the files of the model at ``path``: a folder, or one safetensors file.

    In a folder the order is that of transformers: ``model.safetensors``, then an index, then the
    only safetensors file there is.

    Raises:
        CheckpointFormatError: there is no model, more than one, or not as safetensors.
    """
    if path.is_file():
        return Layout(path.parent, (path.name,))
    if not path.is_dir():
        raise CheckpointFormatError(f"{path} does not exist; give a checkpoint folder or file")
    names = sorted(e.name for e in path.iterdir() if e.is_file() and not e.name.startswith("."))
    weights = [name for name in names if name.endswith(_SUFFIX)]
    indices = [name for name in names if name.endswith(_INDEX_SUFFIX)]
    side = list_side_files(path)
    if WEIGHTS in weights:
        return Layout(path, (WEIGHTS,), side=side)
    index = INDEX if INDEX in indices else indices[0] if len(indices) == 1 else None
    if index is not None:
        homes = _read_index(path, index, frozenset(weights))
        return Layout(path, tuple(sorted(set(homes.values()))), index, homes, side)
    if len(weights) == 1:
        return Layout(path, (weights[0],), side=side)
    raise CheckpointFormatError(_what_is_wrong(path, names, weights))


def read_manifest(
    path: Path,
    *,
    digests: bool = True,
    files: bool = True,
    on_bytes: Callable[[int], None] | None = None,
) -> Manifest:
    """Say what the checkpoint at ``path`` holds.

    With ``digests`` every byte is read, once: files and tensors are digested, and numbers that are
    not finite are refused. Memory stays below 64 MB at any size. Without, only headers are read;
    tensors then carry no digest and ``files`` is empty, since a file's entry is its digest.

    Args:
        path: A folder with one or several safetensors files, or one safetensors file.
        digests: Whether to read the tensors' bytes.
        files: Whether to digest whole files too. Without, the manifest knows its content but not
            its identity, at half the processor time: enough to write a recipe.
        on_bytes: Told how many more bytes of weights have been read.

    Raises:
        CheckpointFormatError: the path is no safetensors model, or its index disagrees with it.
        TruncatedFileError: a file's size does not match its header.
        NonFiniteTensorError: a tensor holds NaN or infinity.
    """
    layout = find_layout(path)
    identified: list[FileEntry] = []
    tensors: list[TensorEntry] = []
    for name in layout.weights:
        with open_descriptor(layout.folder / name) as descriptor:
            if digests:
                file, entries = _inspect(descriptor, name, files, on_bytes)
                identified += file
            else:
                entries = read_entries(descriptor, name)
        tensors += entries
    check_tensors(layout, tensors)
    if digests and files:
        beside = (*layout.side, *([layout.index] if layout.index else []))
        identified += [_digest_file(layout.folder / name) for name in beside]
    return Manifest(tuple(sorted(identified)), tuple(sorted(tensors, key=lambda entry: entry.spec)))


def read_entries(descriptor: int, file: str) -> tuple[TensorEntry, ...]:
    """Return the tensors of an open safetensors file, in the order of their bytes.

    Raises:
        CheckpointFormatError: the header breaks a rule of the gate.
        TruncatedFileError: the file's size does not match its header.
    """
    raw, file_size = read_raw_header(descriptor, file)
    return parse_header(raw, file_size, file=file).tensors


def check_tensors(layout: Layout, tensors: Sequence[TensorEntry]) -> None:
    """Check the tensors found in a layout's files against its index.

    Raises:
        CheckpointFormatError: there are none, one stands in two files, or the index names a
            tensor that is not where it says, or leaves one out.
    """
    folder = layout.folder
    if not tensors:
        raise CheckpointFormatError(f"{folder} holds no tensors; nothing can be merged")
    if layout.homes is None:
        return
    found: dict[str, str] = {}
    for entry in tensors:
        name = entry.spec.name
        if name in found:
            raise CheckpointFormatError(
                f"{folder}: tensor {name!r} stands in {found[name]} and in {entry.file}; "
                "save the checkpoint again"
            )
        found[name] = entry.file
    for name in sorted(found.keys() | layout.homes.keys()):
        there, said = found.get(name), layout.homes.get(name)
        if there != said:
            raise CheckpointFormatError(
                f"{folder}: {layout.index} puts tensor {name!r} into {said or 'no file'}, it is in "
                f"{there or 'none of them'}; the shards are of different saves, copy them again"
            )


@contextmanager
def open_descriptor(path: Path) -> Iterator[int]:
    """Open a file for reading as a bare descriptor, and close it at the end."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _inspect(
    descriptor: int, file: str, identify: bool, on_bytes: Callable[[int], None] | None
) -> tuple[list[FileEntry], tuple[TensorEntry, ...]]:
    raw, file_size = read_raw_header(descriptor, file)
    entries = parse_header(raw, file_size, file=file).tensors
    with Inspection(file, raw, identify=identify) as inspection:
        for entry in entries:
            for start in range(0, entry.spec.bytes, BLOCK):
                view = inspection.lend(min(BLOCK, entry.spec.bytes - start))
                read_exactly(descriptor, entry.offset + start, view, file)
                inspection.feed(entry.spec, view)
                if on_bytes:
                    on_bytes(len(view))
        entries = inspection.finish(entries)
        return [inspection.identity] if identify else [], entries


def _digest_file(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(path.name, file.tell(), Digest(digest))


def _read_index(folder: Path, name: str, present: frozenset[str]) -> Mapping[str, str]:
    index = _parse_index(folder / name)
    homes = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(homes, dict) or not homes:
        raise CheckpointFormatError(
            f"{folder / name} is not the index of a sharded model: it has no weight_map; save the "
            "checkpoint again"
        )
    for tensor, home in homes.items():
        # Also refuses "../x", "/x" and "a/b": the folder's own base names are all there is.
        if not isinstance(home, str) or home not in present:
            raise CheckpointFormatError(
                f"{folder / name} puts tensor {tensor[:80]!r} into {str(home)[:80]!r}, "
                "which is no safetensors file of this folder; copy the missing shard"
            )
    return homes


def _parse_index(path: Path) -> object:
    """Read an index; what it says of sizes is not believed, since the shards say so themselves."""
    size = path.stat().st_size
    if size > HARD_HEADER_LIMIT:
        raise CheckpointFormatError(
            f"{path} takes {size:,} bytes; of an index at most {HARD_HEADER_LIMIT:,} are read"
        )
    content = path.read_bytes()
    found = outline(content, levels=_INDEX_LEVELS)
    if found.nested or max(found.members, found.containers) > _INDEX_MEMBERS:
        raise CheckpointFormatError(
            f"{path} is no index: it nests more than {_INDEX_LEVELS} levels deep, is not closed, "
            f"or names more than {_INDEX_MEMBERS:,} tensors"
        )
    try:
        return json.loads(content, object_pairs_hook=_unique)
    except ValueError as error:
        raise CheckpointFormatError(f"{path} is not JSON: {error}; copy it again") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return fields


def _what_is_wrong(folder: Path, names: Sequence[str], weights: Sequence[str]) -> str:
    if weights:
        return (
            f"{folder} holds {len(weights)} safetensors files and no {INDEX} that says how they "
            "belong together; name one of the files, or copy the index too"
        )
    pickled = [name for name in names if name.endswith(_PICKLED)]
    if pickled:
        return (
            f"{folder} holds no safetensors, only {', '.join(pickled[:3])}; save the model as "
            "safetensors in the training job (model.save_pretrained)"
        )
    return f"{folder} holds no safetensors file; give a checkpoint folder or file"
