"""The header gate: what it lets through, and the reason it gives for everything else."""

import json
import struct

import pytest

from ckptmerge.domain.checkpoint import TensorSpec
from ckptmerge.errors import CheckpointFormatError, TruncatedFileError
from ckptmerge.formats.header import (
    HARD_HEADER_LIMIT,
    TENSOR_LIMIT,
    encode_header,
    parse_header,
    read_header,
)

PAIR = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [8, 14]},
}


def raw(header: object) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def parse(header: object, data: int = 14, **kwargs: int):
    head = raw(header)
    return parse_header(head, len(head) + data, file="x.safetensors", **kwargs)


def tensor(**changes: object) -> dict[str, object]:
    field = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {"a": {**field, **changes}}


def test_a_good_header_gives_names_places_and_metadata():
    header = parse({"__metadata__": {"format": "pt"}, **PAIR})
    assert [entry.spec for entry in header.tensors] == [
        TensorSpec("a", "F32", (2,)),
        TensorSpec("b", "BF16", (1, 3)),
    ]
    assert [entry.offset - header.size for entry in header.tensors] == [0, 8]
    assert [entry.file for entry in header.tensors] == ["x.safetensors"] * 2
    assert header.metadata == {"format": "pt"}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b" {}", "does not begin with '{'"),
        (b"{}\n", "other than '}' and spaces"),
        (b"{}x", "other than '}' and spaces"),
        (b'{"a":' + json.dumps(PAIR["a"]).encode() + b',"a":{}}', "stands twice"),
        (b'{"a":{"dtype":"F32","dtype":"F16"}}', "stands twice"),
        (b'{"__metadata__":{"k":"1","k":"2"}}', "stands twice"),
        (b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', "whole numbers"),
        (b'{"a":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}}', "whole numbers"),
        (b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', "whole numbers"),
        (b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,8]}}', "from 0 to 2"),
        (b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', "from 0 to 2"),
        (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', "2^48"),
        (b'{"__metadata__":{"k":"\xff"}}', "not the JSON"),
        (b'{"__metadata__":{"k":"\\ud800"}}', "surrogate"),
        (b'{"a":' + b"[" * 100_000 + b"}", "nests more than 3"),
        (b'{"a":[[[1]]]}', "nests more than 3"),
        (b'{"a":[1}}', "not the JSON"),
        (b'{"a":"' + b'\\"' * 100_000 + b"}", "not closed"),
        ({"__metadata__": {"k": 1}}, "is not text"),
        ({"__metadata__": []}, "is not an object"),
        ({"__metadata__": {"k": "x" * 1_000_001}}, "at most 1000000"),
        ({"": PAIR["a"]}, "tensor name"),
        ({"../../etc/passwd": PAIR["a"]}, "tensor name"),
        ({"/a": PAIR["a"]}, "tensor name"),
        ({"a\x00b": PAIR["a"]}, "tensor name"),
        ({"a\n": PAIR["a"]}, "tensor name"),
        ({"a" * 513: PAIR["a"]}, "tensor name"),
        ({"a": 1}, "needs exactly"),
        (tensor(extra=1), "needs exactly"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "needs exactly"),
        (tensor(dtype="C64"), "dtype 'C64'"),
        (tensor(dtype=None), "dtype 'None'"),
        (tensor(shape=[True, 2]), "needs a shape"),
        (tensor(shape="2"), "needs a shape"),
        (tensor(shape=[1] * 16 + [2]), "needs a shape"),
        (tensor(shape=[0, 2**40, 2**20]), "larger than 2^48"),
        (tensor(shape=[2**48]), "larger than 2^48"),
        (tensor(data_offsets=[0, True]), "two whole numbers"),
        (tensor(data_offsets=[0]), "two whole numbers"),
        (tensor(data_offsets=[8, 0]), "has -8 bytes"),
        (tensor(data_offsets=[0, 4]), "has 4 bytes"),
        (tensor(data_offsets=[4, 12]), "leaves a gap"),
        ({"a": PAIR["a"], "b": PAIR["a"]}, "overlaps"),
        ({"a": PAIR["a"], "b": {**PAIR["b"], "data_offsets": [10, 16]}}, "leaves a gap"),
        ([], "does not begin with"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_gate_refuses_and_says_why(header: object, reason: str):
    with pytest.raises(CheckpointFormatError, match=r"x\.safetensors") as refused:
        parse(header)
    assert reason in str(refused.value)


def test_too_many_tensors_are_refused():
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    with pytest.raises(CheckpointFormatError, match="at most 100000"):
        parse({str(i): empty for i in range(TENSOR_LIMIT + 1)}, data=0)


def test_a_long_header_is_refused_before_it_is_parsed():
    with pytest.raises(CheckpointFormatError, match="between 2 and 50"):
        parse(PAIR, limit=50)


def test_no_caller_may_raise_the_limit_beyond_the_hard_one(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(raw(PAIR) + bytes(14))
    with pytest.raises(ValueError, match="header limit"):
        read_header(tmp_path / "x.safetensors", limit=HARD_HEADER_LIMIT + 1)


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_file_too_short_for_a_length_is_refused(tmp_path, size):
    (tmp_path / "x.safetensors").write_bytes(bytes(size))
    with pytest.raises(TruncatedFileError, match="too few"):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("keep", "reason"), [(40, "its header alone"), (-1, "1 are missing"), (-14, "14 are missing")]
)
def test_a_truncated_file_is_refused(tmp_path, keep, reason):
    whole = raw(PAIR) + bytes(14)
    (tmp_path / "x.safetensors").write_bytes(whole[:keep])
    with pytest.raises(TruncatedFileError, match=reason):
        read_header(tmp_path / "x.safetensors")


def test_a_file_with_bytes_left_over_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(raw(PAIR) + bytes(15))
    with pytest.raises(TruncatedFileError, match="1 are too many"):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("magic", "kind"),
    [
        (b"PK\x03\x04", "torch.save"),
        (b"\x80\x04\x95", "pickle"),
        (b"GGUF\x03", "GGUF"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"version https://git-lfs", "git lfs pull"),
    ],
)
def test_another_format_is_named(tmp_path, magic, kind):
    (tmp_path / "pytorch_model.bin").write_bytes(magic + b"\xff" * 100)
    with pytest.raises(CheckpointFormatError, match=f"not safetensors but .*{kind}") as refused:
        read_header(tmp_path / "pytorch_model.bin")
    assert "save the model as safetensors in the training job" in str(refused.value)


def test_brackets_within_text_are_not_nesting():
    assert parse({"__metadata__": {"k": '[[[[{{{{"\\'}, **PAIR}).metadata == {"k": '[[[[{{{{"\\'}


def test_empty_tensors_and_scalars_pass():
    header = parse(
        {
            "s": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]},
            "e": {"dtype": "F32", "shape": [0, 7], "data_offsets": [0, 0]},
            "z": {"dtype": "I64", "shape": [7, 0], "data_offsets": [8, 8]},
        },
        data=8,
    )
    assert [entry.spec.name for entry in header.tensors] == ["e", "s", "z"]


def test_the_encoder_is_deterministic_and_aligned():
    specs = [TensorSpec("a", "F32", (2,)), TensorSpec("b", "U8", (3,))]
    one = encode_header(specs, {"k": "v", "a": "ä"})
    assert one == encode_header(specs, {"a": "ä", "k": "v"})
    assert len(one) % 8 == 0
    assert parse_header(one, len(one) + 11).metadata == {"a": "ä", "k": "v"}
