"""Whatever the header gate accepts, the safetensors library accepts and reads the same way."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from ckptmerge.domain.checkpoint import BITS, TensorSpec
from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats.header import encode_header, read_header

NAMES = st.from_regex(r"[A-Za-z0-9_.\-:][A-Za-z0-9_.\-/:]{0,20}", fullmatch=True).filter(
    lambda name: ".." not in name and name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SPECS = st.lists(
    st.builds(TensorSpec, NAMES, st.sampled_from(sorted(BITS)), SHAPES),
    max_size=6,
    unique_by=lambda spec: spec.name,
)
FAST = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def as_the_library_reads(path: Path) -> tuple[dict[str, tuple[str, list[int]]], dict[str, str]]:
    with safe_open(path, framework="np") as file:
        tensors = {}
        for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
            part = file.get_slice(name)
            tensors[name] = (part.get_dtype(), part.get_shape())
        return tensors, file.metadata() or {}


def agrees(path: Path) -> None:
    header = read_header(path)
    tensors, metadata = as_the_library_reads(path)
    assert tensors == {e.spec.name: (e.spec.dtype, list(e.spec.shape)) for e in header.tensors}
    assert metadata == header.metadata


@FAST
@given(specs=SPECS, metadata=st.dictionaries(TEXT, TEXT, max_size=3))
def test_what_we_write_we_and_the_library_read_alike(tmp_path, specs, metadata):
    path = tmp_path / "x.safetensors"
    path.write_bytes(encode_header(specs, metadata) + bytes(sum(spec.bytes for spec in specs)))
    agrees(path)
    assert [entry.spec for entry in sorted(read_header(path).tensors, key=lambda e: e.spec)] == (
        sorted(specs)
    )


def mutations() -> st.SearchStrategy[tuple[int, bytes, int]]:
    """Overwrite, at a place, with some bytes, after dropping some."""
    tokens = [b"0", b"-0", b"1", b"9" * 21, b"true", b"null", b"{", b"}", b"[", b"]", b",", b":",
              b'"', b'"a"', b" ", b"\n", b"\x00", b"\xff", b"1.0", b"1e1", b"NaN", b"\\ud800",
              b'"b":{},', b"F64", b"F4", b"/", b".."]  # fmt: skip
    return st.tuples(st.integers(0, 400), st.sampled_from(tokens), st.integers(0, 3))


@FAST
@given(
    specs=SPECS.filter(bool),
    metadata=st.dictionaries(TEXT, TEXT, max_size=2),
    changes=st.lists(mutations(), min_size=1, max_size=3),
    data=st.integers(-2, 2),
)
@example(specs=[TensorSpec("a", "U8", (0, 4))], metadata={}, changes=[(29, b"-0", 1)], data=0).via(
    "minus zero is zero to Python and an error to the library"
)
def test_damage_is_refused_or_read_alike(tmp_path, specs, metadata, changes, data):
    text = encode_header(specs, metadata)[8:]
    for place, token, dropped in changes:
        at = place % (len(text) + 1)
        text = text[:at] + token + text[at + dropped :]
    size = max(0, sum(spec.bytes for spec in specs) + data)
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    try:
        read_header(path)
    except CheckpointFormatError:
        return
    agrees(path)


@FAST
@given(specs=SPECS.filter(bool), cut=st.integers(1, 40))
def test_every_cut_is_refused_by_both(tmp_path, specs, cut):
    whole = encode_header(specs, {}) + bytes(sum(spec.bytes for spec in specs))
    assume(cut < len(whole))
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole[:-cut])
    with pytest.raises(CheckpointFormatError):
        read_header(path)
    with pytest.raises(SafetensorError):
        as_the_library_reads(path)


def test_the_gate_is_stricter_where_the_library_is_lax(tmp_path):
    """A negative control: the library takes these, so the differential test could see it."""
    path = tmp_path / "x.safetensors"
    field = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    text = json.dumps({"../a": field}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(1))
    assert as_the_library_reads(path)[0] == {"../a": ("U8", [1])}
    with pytest.raises(CheckpointFormatError):
        read_header(path)
