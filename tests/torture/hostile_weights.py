"""Hostile weight files: what is no safetensors file, or one that nobody should store and serve."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ckptmerge.domain.checkpoint import BITS
from tests.torture.hostile_file import Hostile, Place

FORMAT = "checkpoint-format"
TRUNCATED = "truncated-file"
NOT_FINITE = "non-finite-tensor"

_F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(header: object, data: int | bytes = 8, *, length: int | None = None) -> bytes:
    """Write a safetensors file as it should not be.

    Args:
        header: Its JSON, as bytes or as what is to be written so.
        data: The tensors' bytes, or how many zeros.
        length: What the first eight bytes say, where they do not tell the truth.
    """
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = bytes(data) if isinstance(data, int) else data
    said = len(text) if length is None else length
    return struct.pack("<Q", said) + text + content


def one(**changes: object) -> bytes:
    """Write a file of one tensor, with fields of it replaced."""
    return file_of({"w": {**_F32, **changes}})


def called(name: str) -> bytes:
    """Write a sound file but for the name of its tensor."""
    return file_of({name: _F32})


def empties(count: int) -> bytes:
    """Write a file of so many tensors without a number."""
    field = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    return file_of({str(number): field for number in range(count)}, 0)


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(10_000_000))
    return packed.getvalue()


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("../../outside")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    return packed.getvalue()


def _npy(array: "np.ndarray") -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=True)
    return written.getvalue()


def _written(text: bytes, data: int = 8) -> bytes:
    return file_of(text, data)


_FIELD = json.dumps(_F32).encode()

_REFUSED: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    # What stands twice
    "tensor twice": (FORMAT, lambda: _written(b'{"w":' + _FIELD + b',"w":' + _FIELD + b"}")),
    "tensor twice by an escape": (
        FORMAT, lambda: _written(b'{"w":' + _FIELD + b',"\\u0077":' + _FIELD + b"}")),
    "dtype twice": (FORMAT, lambda: _written(
        b'{"w":{"dtype":"F32","dtype":"F64","shape":[2],"data_offsets":[0,8]}}')),
    "offsets twice": (FORMAT, lambda: _written(
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4],"data_offsets":[0,8]}}')),
    "metadata key twice": (FORMAT, lambda: _written(
        b'{"__metadata__":{"k":"1","k":"2"},"w":' + _FIELD + b"}")),
    "metadata twice": (FORMAT, lambda: _written(
        b'{"__metadata__":{},"__metadata__":{},"w":' + _FIELD + b"}")),
    # Where bytes lie
    "gap before the first": (FORMAT, lambda: file_of({"w": {**_F32, "data_offsets": [8, 16]}}, 16)),
    "gap in between": (FORMAT, lambda: file_of(
        {"a": _F32, "b": {**_F32, "data_offsets": [9, 17]}}, 17)),
    "overlap": (FORMAT, lambda: file_of({"a": _F32, "b": {**_F32, "data_offsets": [4, 12]}}, 12)),
    "two names for the same bytes": (FORMAT, lambda: file_of({"a": _F32, "b": _F32})),
    "bytes left over": (TRUNCATED, lambda: file_of({"w": _F32}, 9)),
    "a megabyte left over": (TRUNCATED, lambda: file_of({"w": _F32}, 2**20)),
    "last byte missing": (TRUNCATED, lambda: file_of({"w": _F32}, 7)),
    "all tensors missing": (TRUNCATED, lambda: file_of({"w": _F32}, 0)),
    "offsets beyond 2^64": (FORMAT, lambda: one(data_offsets=[0, 2**64 + 8])),
    "offsets backwards": (FORMAT, lambda: one(data_offsets=[8, 0])),
    "negative offset": (FORMAT, lambda: one(data_offsets=[-8, 0])),
    "offset minus zero": (FORMAT, lambda: _written(
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}')),
    "offset true": (FORMAT, lambda: one(shape=[], dtype="U8", data_offsets=[False, True])),
    "offset a float": (FORMAT, lambda: one(data_offsets=[0, 8.0])),
    "offset text": (FORMAT, lambda: one(data_offsets=["0", "8"])),
    "one offset": (FORMAT, lambda: one(data_offsets=[0])),
    "three offsets": (FORMAT, lambda: one(data_offsets=[0, 8, 8])),
    "offsets null": (FORMAT, lambda: one(data_offsets=None)),
    # Shapes and dtypes
    "shape of another size": (FORMAT, lambda: one(shape=[3])),
    "shape that overflows 2^64": (FORMAT, lambda: one(shape=[2**32, 2**32, 2**32])),
    "shape that overflows to zero": (FORMAT, lambda: one(shape=[2**63, 2])),
    "empty but overflowing": (FORMAT, lambda: file_of(
        {"w": {"dtype": "F32", "shape": [0, 2**40, 2**20], "data_offsets": [0, 0]}}, 0)),
    "negative dimensions": (FORMAT, lambda: one(shape=[-1, -2])),
    "dimension true": (FORMAT, lambda: one(shape=[True, 2])),
    "dimension 2.0": (FORMAT, lambda: one(shape=[2.0])),
    "dimension 2e0": (FORMAT, lambda: _written(
        b'{"w":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}}')),
    "dimension NaN": (FORMAT, lambda: one(shape=[float("nan")])),
    "dimension Infinity": (FORMAT, lambda: one(shape=[float("inf")])),
    "dimension of 5000 digits": (FORMAT, lambda: _written(
        b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}')),
    "dimension a list": (FORMAT, lambda: one(shape=[[2]])),
    "shape text": (FORMAT, lambda: one(shape="2")),
    "shape null": (FORMAT, lambda: one(shape=None)),
    "rank 17": (FORMAT, lambda: one(shape=[1] * 16 + [2])),
    "rank 100,000": (FORMAT, lambda: one(shape=[1] * 100_000 + [2])),
    "unknown dtype": (FORMAT, lambda: one(dtype="C64")),
    "dtype in lower case": (FORMAT, lambda: one(dtype="f32")),
    "dtype a number": (FORMAT, lambda: one(dtype=32)),
    "dtype a list of a million": (FORMAT, lambda: one(dtype=[1] * 1_000_000)),
    "four-bit floats": (FORMAT, lambda: file_of(
        {"w": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, 2)),
    # Fields
    "unknown field": (FORMAT, lambda: one(strides=[1])),
    "field missing": (FORMAT, lambda: file_of({"w": {"dtype": "F32", "shape": [2]}})),
    "tensor a list": (FORMAT, lambda: file_of({"w": [1]})),
    "tensor null": (FORMAT, lambda: file_of({"w": None})),
    "no tensors": (FORMAT, lambda: file_of({}, 0)),
    "metadata alone": (FORMAT, lambda: file_of({"__metadata__": {"format": "pt"}}, 0)),
    # Names
    "name empty": (FORMAT, lambda: called("")),
    "name ../../etc/passwd": (FORMAT, lambda: called("../../etc/passwd")),
    "name a..b": (FORMAT, lambda: called("a..b")),
    "name /etc/passwd": (FORMAT, lambda: called("/etc/passwd")),
    "name with NUL": (FORMAT, lambda: called("a\0b")),
    "name with a line feed": (FORMAT, lambda: called("a\nb")),
    "name with a backslash": (FORMAT, lambda: called("a\\b")),
    "name with markup": (FORMAT, lambda: called("<script>alert(1)</script>")),
    "name right to left": (FORMAT, lambda: called("\u202egnp.exe")),
    "name of half a surrogate pair": (FORMAT, lambda: called("\ud800")),
    "name of 513 letters": (FORMAT, lambda: called("a" * 513)),
    "name of a megabyte": (FORMAT, lambda: called("a" * 2**20)),
    # Metadata
    "metadata not text": (FORMAT, lambda: file_of({"__metadata__": {"k": 1}, "w": _F32})),
    "metadata null": (FORMAT, lambda: file_of({"__metadata__": None, "w": _F32})),
    "metadata a list": (FORMAT, lambda: file_of({"__metadata__": ["k"], "w": _F32})),
    "metadata nested": (FORMAT, lambda: file_of({"__metadata__": {"k": {}}, "w": _F32})),
    "metadata of a megabyte": (FORMAT, lambda: file_of(
        {"__metadata__": {"k": "x" * 1_000_001}, "w": _F32})),
    "metadata of half a surrogate pair": (FORMAT, lambda: file_of(
        {"__metadata__": {"k": "\udfff"}, "w": _F32})),
    # The JSON
    "bad UTF-8": (FORMAT, lambda: _written(b'{"w\xff":' + _FIELD + b"}")),
    "UTF-8 longer than need be": (FORMAT, lambda: _written(b'{"w\xc0\xaf":' + _FIELD + b"}")),
    "byte order mark": (FORMAT, lambda: _written(b'\xef\xbb\xbf{"w":' + _FIELD + b"}")),
    "UTF-16": (FORMAT, lambda: _written(('{"w":' + _FIELD.decode() + "}").encode("utf-16"))),
    "blank in front": (FORMAT, lambda: _written(b' {"w":' + _FIELD + b"}")),
    "line feed behind": (FORMAT, lambda: _written(b'{"w":' + _FIELD + b"}\n")),
    "comment": (FORMAT, lambda: _written(b'{/* */"w":' + _FIELD + b"}")),
    "comma at the end": (FORMAT, lambda: _written(b'{"w":' + _FIELD + b",}")),
    "two objects": (FORMAT, lambda: _written(b'{"w":' + _FIELD + b"}{}")),
    "a list": (FORMAT, lambda: _written(b'[{"w":' + _FIELD + b"}]")),
    "spaces alone": (FORMAT, lambda: _written(b" " * 1000)),
    "zeros alone": (FORMAT, lambda: _written(bytes(1000))),
    "not closed": (FORMAT, lambda: _written(b'{"w":' + _FIELD)),
    "four levels": (FORMAT, lambda: _written(b'{"w":[[[1]]]}')),
    "depth bomb of brackets": (FORMAT, lambda: _written(b'{"w":' + b"[" * 5_000_000 + b"}")),
    "depth bomb of braces": (FORMAT, lambda: _written(
        b'{"w":' * 1_000_000 + b"1" + b"}" * 1_000_000)),
    "text that never ends": (FORMAT, lambda: _written(b'{"' + b'\\"' * 2_000_000 + b"}")),
    "lone brackets by the million": (FORMAT, lambda: _written(b"{" + b"[]" * 4_000_000 + b"}")),
    "objects by the million": (FORMAT, lambda: _written(
        b"{" + b",".join(b'"%d":{}' % n for n in range(800_000)) + b"}")),
    "numbers by the million": (FORMAT, lambda: _written(
        b'{"w":{"shape":[' + b"1," * 4_500_000 + b"1]}}")),
    "metadata keys by the million": (FORMAT, lambda: _written(
        b'{"__metadata__":{' + b",".join(b'"%d":""' % n for n in range(800_000)) + b"}}")),
    "100,001 tensors": (FORMAT, lambda: empties(100_001)),
    # Lengths
    "nothing": (TRUNCATED, lambda: b""),
    "seven bytes": (TRUNCATED, lambda: bytes(7)),
    "a length alone": (TRUNCATED, lambda: struct.pack("<Q", 100)),
    "length 0": (FORMAT, lambda: file_of({"w": _F32}, length=0)),
    "length 1": (FORMAT, lambda: file_of({"w": _F32}, length=1)),
    "length one too many": (FORMAT, lambda: file_of({"w": _F32}, b"\0" * 8, length=len(
        json.dumps({"w": _F32})) + 1)),
    "length of the whole disk": (FORMAT, lambda: file_of({"w": _F32}, length=2**40)),
    "length 2^63": (FORMAT, lambda: file_of({"w": _F32}, length=2**63)),
    "length 2^64 - 1": (FORMAT, lambda: file_of({"w": _F32}, length=2**64 - 1)),
    "length 2^64 - 8": (FORMAT, lambda: file_of({"w": _F32}, length=2**64 - 8)),
    "header one byte too long": (FORMAT, lambda: _written(
        (b'{"w":' + _FIELD + b"}").ljust(10_000_001))),
    "header of 30 MB": (FORMAT, lambda: _written((b'{"w":' + _FIELD + b"}").ljust(30_000_000))),
    "header cut in the middle": (TRUNCATED, lambda: file_of({"w": _F32})[:40]),
    # Other formats
    "a pickle": (FORMAT, lambda: pickle.dumps({"w": [1.0] * 100})),
    "an old pickle": (FORMAT, lambda: pickle.dumps({"w": [1.0] * 100}, protocol=0)),
    "a zip": (FORMAT, _zip),
    "a tar": (FORMAT, _tar),
    "a gguf": (FORMAT, lambda: b"GGUF\x03\0\0\0" + bytes(100)),
    "an hdf5": (FORMAT, lambda: b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "a gzip": (FORMAT, lambda: b"\x1f\x8b\x08\0" + bytes(100)),
    "an npy of objects": (FORMAT, lambda: _npy(np.array([{"w": 1}], dtype=object))),
    "an ELF": (FORMAT, lambda: b"\x7fELF\x02\x01\x01\0" + bytes(100)),
    "a script": (FORMAT, lambda: b"#!/bin/sh\nexit 1\n" + b"#" * 100),
    "an LFS pointer": (FORMAT, lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
    "a page": (FORMAT, lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    "random bytes": (FORMAT, lambda: np.random.default_rng(0).bytes(10_000)),
}  # fmt: skip
"""What each is refused as, and how it is made."""

_LEGAL: Mapping[str, Callable[[], bytes]] = {
    "a scalar": lambda: one(shape=[], dtype="F64"),
    "an empty tensor beside another": lambda: file_of(
        {"e": {"dtype": "F32", "shape": [0, 7], "data_offsets": [0, 0]}, "w": _F32}),
    "empty tensors alone": lambda: file_of(
        {"e": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, 0),
    "rank 16": lambda: one(shape=[1] * 15 + [2]),
    "name of 512 letters": lambda: called("a" * 512),
    "name with / and :": lambda: called("a/b:c-d_e.f"),
    "spaces behind the header": lambda: file_of((b'{"w":' + _FIELD + b"}").ljust(100_000)),
    "metadata of markup and NUL": lambda: file_of(
        {"__metadata__": {"\0<script>": "\0\u202e</script>"}, "w": _F32}),
    "metadata that looks like nesting": lambda: file_of(
        {"__metadata__": {"k": '[[[[{{{{"\\'}, "w": _F32}),
    "tensors out of order": lambda: file_of(
        {"b": {**_F32, "data_offsets": [8, 16]}, "a": _F32}, 16),
    "a length that reads as a gzip": lambda: _written(
        (b'{"w":' + _FIELD + b"}").ljust(0x8B1F)),
    "a truth value of 255": lambda: file_of(
        {"w": {"dtype": "BOOL", "shape": [8], "data_offsets": [0, 8]}}, b"\xff" * 8),
    "eight-bit NaN": lambda: file_of(
        {"w": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, b"\x7f" * 8),
    "the largest finite number": lambda: _payload("F32", 0x7F7FFFFF),
    "the smallest of all": lambda: _payload("F32", 1),
    "minus zero": lambda: _payload("F32", 0x80000000),
}  # fmt: skip
"""What looks strange and is a checkpoint all the same."""

_EXPONENT = {"F64": 0x7FF << 52, "F32": 0xFF << 23, "F16": 0x1F << 10, "BF16": 0xFF << 7}


def weight_files() -> Iterator[Hostile]:
    """Yield every weight file, legal ones included."""
    for name, (refusal, make) in {**_REFUSED, **_not_finite()}.items():
        yield Hostile(name=name, place=Place.WEIGHTS, make=make, refusal=refusal)
    for name, make in _LEGAL.items():
        yield Hostile(name=name, place=Place.WEIGHTS, make=make, refusal=None)


def _not_finite() -> dict[str, tuple[str, Callable[[], bytes]]]:
    """Return NaN quiet and signalling, and both infinities, in every dtype that is merged."""
    files: dict[str, tuple[str, Callable[[], bytes]]] = {}
    for dtype, exponent in _EXPONENT.items():
        bits = BITS[dtype]
        payloads = {
            "infinity": exponent,
            "minus infinity": exponent | 1 << bits - 1,
            "NaN": exponent | exponent >> 1,
            "signalling NaN": exponent | 1,
        }
        for what, payload in payloads.items():
            files[f"{what} in {dtype}"] = (
                NOT_FINITE,
                lambda dtype=dtype, payload=payload: _payload(dtype, payload),
            )
    return files


def _payload(dtype: str, bits: int) -> bytes:
    """Write a thousand zeros of a dtype with one other number at the end."""
    width = BITS[dtype] // 8
    data = bytes(999 * width) + bits.to_bytes(width, "little")
    return file_of({"w": {"dtype": dtype, "shape": [1000], "data_offsets": [0, len(data)]}}, data)
