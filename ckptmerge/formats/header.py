"""The safetensors header: a strict gate on the way in, one deterministic form on the way out.

A safetensors file is eight bytes of length N (little endian), N bytes of JSON, then the tensors'
bytes (https://github.com/huggingface/safetensors, "Format"). The library's own reader accepts more
than we want to store and serve (duplicate names, ``../`` in names, 100 MB of header), so this gate
stands before it: whatever passes here, the library accepts and reads the same way.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ckptmerge.domain.checkpoint import BITS, TensorEntry, TensorSpec
from ckptmerge.errors import CheckpointFormatError, TruncatedFileError
from ckptmerge.formats.json_text import outline

HEADER_LIMIT = 10_000_000
"""Longest header accepted by default, in bytes; the largest models need about one megabyte."""

HARD_HEADER_LIMIT = 25_000_000
"""Longest header that any caller may ask for; huggingface_hub stops there too."""

TENSOR_LIMIT = 100_000
"""Most tensors in one file."""

_METADATA_LIMIT = 1_000_000
_MEMBERS_LIMIT = 5 * TENSOR_LIMIT  # a name and three fields each, and as many entries of metadata
_CONTAINERS_LIMIT = 3 * TENSOR_LIMIT + 2  # a tensor is an object with two lists
_COMMAS_LIMIT = 20 * TENSOR_LIMIT  # between fields, offsets and sixteen dimensions
_NAME_LIMIT = 512
_RANK_LIMIT = 16
_BYTES_LIMIT = 2**48
_DEPTH_LIMIT = 3
_METADATA = "__metadata__"
_KEYS = frozenset({"dtype", "shape", "data_offsets"})
_NAME = re.compile(r"[A-Za-z0-9_.\-:][A-Za-z0-9_.\-/:]*")

_FOREIGN = {
    b"PK\x03\x04": "a zip archive, as torch.save writes",
    b"\x80": "a Python pickle, which can run code when it is loaded",
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
    b"version ": "a Git LFS pointer: the real file was never fetched (run `git lfs pull`)",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the head of a safetensors file says."""

    tensors: tuple[TensorEntry, ...]
    """In the order of their bytes, which follow each other without gaps."""
    metadata: Mapping[str, str]
    size: int
    """Bytes before the first tensor, the eight bytes of length included."""


def read_header(path: Path, *, limit: int = HEADER_LIMIT) -> Header:
    """Read and check the header of the file at ``path``.

    Raises:
        CheckpointFormatError: the file is not the safetensors file it should be.
        TruncatedFileError: its size does not match its header.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return parse_header(*read_raw_header(descriptor, path.name, limit=limit), file=path.name)
    finally:
        os.close(descriptor)


def read_raw_header(descriptor: int, file: str, *, limit: int = HEADER_LIMIT) -> tuple[bytes, int]:
    """Read the head of an open file: its length, its JSON, and the size of the whole file.

    Args:
        descriptor: The open file.
        file: Its name, for messages.
        limit: Longest header accepted, in bytes.

    Raises:
        CheckpointFormatError: the length cannot be that of a header.
        TruncatedFileError: the file ends before its header does.
    """
    if not 2 <= limit <= HARD_HEADER_LIMIT:
        raise ValueError(f"a header limit lies between 2 and {HARD_HEADER_LIMIT}, not {limit}")
    file_size = os.fstat(descriptor).st_size
    prefix = bytearray(min(8, file_size))
    read_exactly(descriptor, 0, memoryview(prefix), file)
    length = _length(bytes(prefix), file_size, file, limit)
    raw = bytearray(8 + length)
    read_exactly(descriptor, 0, memoryview(raw), file)
    return bytes(raw), file_size


def read_exactly(descriptor: int, offset: int, into: memoryview, file: str) -> None:
    """Fill ``into`` with the bytes of an open file from ``offset`` on.

    Read by copy and never through a memory map: a file that somebody shortens meanwhile must
    raise an error here, and would kill the process there (SIGBUS).

    Raises:
        TruncatedFileError: the file ends too early.
    """
    filled = 0
    while filled < len(into):
        count = os.preadv(descriptor, [into[filled:]], offset + filled)
        if count == 0:
            raise TruncatedFileError(
                f"{file} ends at byte {offset + filled}, {len(into) - filled} bytes too early; "
                "it was cut short, copy it again from where it was written"
            )
        filled += count


def parse_header(
    raw: bytes, file_size: int, *, file: str = "the file", limit: int = HEADER_LIMIT
) -> Header:
    """Check the head of a safetensors file and say where each tensor lies.

    Args:
        raw: The first bytes of the file: at least the length and the JSON.
        file_size: Size of the whole file in bytes.
        file: Its name, for entries and messages.
        limit: Longest header accepted, in bytes.

    Raises:
        CheckpointFormatError: a rule of the gate is broken; the message names file and rule.
        TruncatedFileError: bytes are missing at the end, or there are too many.
    """
    length = _length(raw[:8], file_size, file, limit)
    if len(raw) < 8 + length:
        raise TruncatedFileError(f"{file}: {len(raw)} of {8 + length} header bytes were given")
    fields = _parse_json(raw[8 : 8 + length], file)
    metadata = _check_metadata(fields.pop(_METADATA, {}), file)
    if len(fields) > TENSOR_LIMIT:
        _refuse(file, f"it lists {len(fields)} tensors; at most {TENSOR_LIMIT} are accepted")
    ranges = sorted(
        (_check_tensor(name, field, file) for name, field in fields.items()),
        key=lambda item: (item[1], item[2], item[0].name),
    )
    _check_coverage(ranges, file_size - 8 - length, file)
    tensors = tuple(TensorEntry(spec, file, 8 + length + begin) for spec, begin, _ in ranges)
    return Header(tensors, metadata, 8 + length)


def encode_header(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Write the head of a file that holds ``specs`` one after the other.

    One input has one output: metadata sorted by key, no spaces but those that pad the header to a
    multiple of eight bytes, so that the first tensor is aligned.
    """
    fields: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for spec in specs:
        end = offset + spec.bytes
        fields[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _refuse(file: str, what: str) -> NoReturn:
    raise CheckpointFormatError(f"{file} is not an acceptable safetensors file: {what}")


def _length(prefix: bytes, file_size: int, file: str, limit: int) -> int:
    if file_size < 10 or len(prefix) < 8:
        raise TruncatedFileError(
            f"{file} holds {file_size} bytes, too few for a safetensors file; copy it again"
        )
    length = int.from_bytes(prefix, "little")
    if 2 <= length <= limit and 8 + length <= file_size:
        return length
    for magic, kind in _FOREIGN.items():
        if prefix.startswith(magic):
            raise CheckpointFormatError(
                f"{file} is not safetensors but {kind}; save the model as safetensors in the "
                "training job (model.save_pretrained, or safetensors.torch.save_file)"
            )
    if 2 <= length <= limit:
        raise TruncatedFileError(
            f"{file} holds {file_size} bytes, its header alone takes {8 + length}; copy it again"
        )
    _refuse(file, f"its header would take {length} bytes; between 2 and {limit} are accepted")


def _parse_json(raw: bytes, file: str) -> dict[str, object]:
    if raw[:1] != b"{":
        _refuse(file, "its header does not begin with '{'")
    text = raw.rstrip(b" ")
    if text[-1:] != b"}":
        _refuse(file, "its header ends in something other than '}' and spaces")
    _check_extent_of_text(text, file)
    try:
        fields = json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_natural,
        )
    except ValueError as error:  # also bad UTF-8 and bad JSON
        _refuse(file, f"its header is not the JSON it should be: {error}")
    return fields


def _check_extent_of_text(text: bytes, file: str) -> None:
    """Refuse what a parser would recurse into, or make hundreds of megabytes of."""
    found = outline(text, levels=_DEPTH_LIMIT)
    if found.nested:
        _refuse(file, f"its header nests more than {_DEPTH_LIMIT} levels deep, or is not closed")
    if (
        found.members > _MEMBERS_LIMIT
        or found.containers > _CONTAINERS_LIMIT
        or found.commas > _COMMAS_LIMIT
    ):
        _refuse(
            file,
            f"its header holds {found.members} names, {found.containers} objects and lists and "
            f"{found.commas} commas; at most {TENSOR_LIMIT} tensors are accepted",
        )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{twice[:_NAME_LIMIT]!r} stands twice")
    return fields


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} where only whole numbers may stand")


def _natural(text: str) -> int:
    # "-0" is zero to Python and no whole number to other readers: refuse every sign.
    if text.startswith("-") or len(text) > 20:
        raise ValueError(f"{text[:40]} where a number from 0 to 2^48 should stand")
    return int(text)


def _check_metadata(metadata: object, file: str) -> Mapping[str, str]:
    if not isinstance(metadata, dict):
        _refuse(file, f"{_METADATA} is not an object")
    size = 0
    for key, value in metadata.items():
        if not isinstance(value, str):
            _refuse(file, f"{_METADATA} entry {key[:_NAME_LIMIT]!r} is not text")
        try:
            size += len(key.encode()) + len(value.encode())
        except UnicodeEncodeError:
            _refuse(file, f"{_METADATA} holds half of a surrogate pair")
    if size > _METADATA_LIMIT:
        _refuse(file, f"{_METADATA} takes {size} bytes; at most {_METADATA_LIMIT} are accepted")
    return metadata


def _check_tensor(name: str, field: object, file: str) -> tuple[TensorSpec, int, int]:
    _check_name(name, file)
    if not isinstance(field, dict) or field.keys() != _KEYS:
        _refuse(file, f"tensor {name!r} needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = field["dtype"], field["shape"], field["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        said = dtype if isinstance(dtype, str | int | None) else type(dtype).__name__
        _refuse(file, f"tensor {name!r} has dtype {str(said)[:40]!r}; known are {', '.join(BITS)}")
    if not _naturals(shape) or len(shape) > _RANK_LIMIT:
        _refuse(file, f"tensor {name!r} needs a shape of at most {_RANK_LIMIT} whole numbers")
    if not _naturals(offsets) or len(offsets) != 2:
        _refuse(file, f"tensor {name!r} needs two whole numbers as data_offsets")
    spec = TensorSpec(name, dtype, tuple(shape))
    _check_extent(spec, file)
    begin, end = offsets
    if end - begin != spec.bytes:
        _refuse(
            file,
            f"tensor {name!r} has {end - begin} bytes, {dtype} of shape {shape} takes {spec.bytes}",
        )
    return spec, begin, end


def _check_name(name: str, file: str) -> None:
    if len(name) > _NAME_LIMIT or not _NAME.fullmatch(name) or ".." in name:
        _refuse(
            file,
            f"tensor name {name[:80]!r}: use at most {_NAME_LIMIT} of A-Z a-z 0-9 _ . - / : "
            "without '..' and without a leading '/'",
        )


def _naturals(value: object) -> bool:
    # bool is an int to Python, and `true` is no dimension.
    return isinstance(value, list) and all(type(item) is int for item in value)


def _check_extent(spec: TensorSpec, file: str) -> None:
    # Zeros are left out: other readers multiply in order and overflow before they meet one.
    extent = BITS[spec.dtype] // 8
    for dim in spec.shape:
        extent *= max(dim, 1)
    if extent > _BYTES_LIMIT:
        _refuse(file, f"tensor {spec.name!r} of shape {list(spec.shape)} is larger than 2^48 bytes")


def _check_coverage(ranges: Sequence[tuple[TensorSpec, int, int]], data: int, file: str) -> None:
    expected = 0
    for spec, begin, end in ranges:
        if begin != expected:
            kind = "overlaps" if begin < expected else "leaves a gap after"
            _refuse(file, f"tensor {spec.name!r} {kind} the tensor before it, at byte {expected}")
        expected = end
    if data != expected:
        more = data - expected
        what = f"{more} are too many" if more > 0 else f"{-more} are missing"
        raise TruncatedFileError(
            f"{file} holds {data} bytes of tensors, its header describes {expected}: {what}; "
            "copy it again from where it was written"
        )
