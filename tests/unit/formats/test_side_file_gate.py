"""The gate of side files: what it lets through, and why it refuses everything else."""

import json
from pathlib import Path

import pytest

from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats import side_file_gate
from ckptmerge.formats.manifest import require_model_files
from ckptmerge.formats.side_file_gate import check_side_files


def checked(folder: Path, content: object, name: str = "config.json") -> None:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / name).write_bytes(raw)
    check_side_files(folder)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"auto_map": None, "trust_remote_code": False},
        {"_attn_implementation": "flash_attention_2", "attn_implementation": None},
        {"_attn_implementation": {"": "eager", "text_config": "paged|sdpa"}},
        {"id2label": {"0": "auto_map"}, "text_config": {"layer_types": [["full_attention"]]}},
    ],
    ids=str,
)
def test_a_configuration_that_names_no_code_passes(tmp_path: Path, config: object) -> None:
    checked(tmp_path, config)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"auto_map": {"AutoConfig": "m.C"}}, "'auto_map' names code to run"),
        ({"a": [{"b": {"auto_map": "m.C"}}]}, "'auto_map' names code to run"),
        ({"model_file": "m.py"}, "'model_file' names code to run"),
        ({"trust_remote_code": True}, "'trust_remote_code' names code"),
        ({"_attn_implementation": "a/kernel"}, "'_attn_implementation' names code to fetch"),
        ({"x": {"attn_implementation": "a/k@v1"}}, "'attn_implementation' names code to fetch"),
        ({"_experts_implementation": {"": "a/k"}}, "'_experts_implementation' names code to fetch"),
        ({"_attn_implementation_internal": ["a"]}, "names code to fetch"),
        ([], "not a JSON object"),
        (b"{", "not closed"),
        (b"}{", "not closed"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"\xff":1}', "not UTF-8"),
        (b"[" * 1000, "32 levels"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_configuration_is_refused_with_a_reason(
    tmp_path: Path, config: object, reason: str
) -> None:
    with pytest.raises(CheckpointFormatError, match=r"config\.json") as refused:
        checked(tmp_path, config)
    assert reason in str(refused.value)


def test_what_is_too_large_is_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_file_gate, "CONFIGURATION_LIMIT", 10)
    monkeypatch.setattr(side_file_gate, "SIDE_FILE_LIMIT", 20)
    checked(tmp_path, {"a": "0123456789"}, "tokenizer.json")
    with pytest.raises(CheckpointFormatError, match=r"tokenizer\.model .* 21 bytes; at most 20"):
        checked(tmp_path, b"x" * 21, "tokenizer.model")
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(CheckpointFormatError, match=r"config\.json .* 19 bytes; at most 10"):
        checked(tmp_path, {"a": "0123456789"})


def test_a_vocabulary_may_have_more_names_than_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_file_gate, "_MEMBERS_LIMIT", 2)
    checked(tmp_path, {"a": 1, "b": 2, "c": 3}, "vocab.json")
    with pytest.raises(CheckpointFormatError, match="holds 3 names; at most 2"):
        checked(tmp_path, {"a": 1, "b": 2, "c": 3})


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "train.py", ".x.safetensors", "optimizer.pt"]
)
def test_a_file_that_is_none_of_a_checkpoint_is_refused_by_its_name(name: str) -> None:
    require_model_files(["model.safetensors", "config.json", "a.safetensors.index.json"])
    with pytest.raises(CheckpointFormatError, match="is no file of a safetensors checkpoint"):
        require_model_files(["model.safetensors", name])


def test_a_file_that_is_given_twice_is_refused() -> None:
    with pytest.raises(CheckpointFormatError, match="given twice"):
        require_model_files(["model.safetensors", "config.json", "config.json"])
