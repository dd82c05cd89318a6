"""Side files: what goes with a model, and what never does."""

import json

import pytest

from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats.side_files import (
    config_with_dtype,
    is_side_file,
    list_side_files,
    read_side_files,
)


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
     "vocab.json", "vocab.txt", "vocab.bpe", "merges.txt", "special_tokens_map.json",
     "added_tokens.json", "chat_template.jinja", "LICENSE", "README.md", "tokenizer.model"],
)  # fmt: skip
def test_what_belongs_to_a_model_goes_with_it(name):
    assert is_side_file(name)


@pytest.mark.parametrize(
    "name",
    ["modeling.py", "vocab.py", "tokenizer.py", "config.json.py", "optimizer.pt", "rng_state.pth",
     "trainer_state.json", "training_args.bin", "model.safetensors", "recipe.json", ".jinja",
     "model.safetensors.index.json", "../config.json", "config.json\n", "sub/config.json"],
)  # fmt: skip
def test_code_state_and_paths_do_not(name):
    assert not is_side_file(name)


def test_a_folder_named_like_a_side_file_is_not_one(tmp_path):
    (tmp_path / "config.json").mkdir()
    (tmp_path / "LICENSE").write_text("x")
    assert list_side_files(tmp_path) == ("LICENSE",)


def test_the_config_says_the_dtype_of_the_weights(tmp_path):
    config = {"dtype": "float32", "hidden_size": 8, "text_config": {"torch_dtype": "float32"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert json.loads(read_side_files(tmp_path, "bf16")["config.json"]) == {
        "dtype": "bfloat16",
        "hidden_size": 8,
        "text_config": {"torch_dtype": "bfloat16"},
    }


def test_a_kept_dtype_keeps_the_bytes_of_the_config(tmp_path):
    (tmp_path / "config.json").write_bytes(b'{ "dtype":"float32" }')
    assert read_side_files(tmp_path)["config.json"] == b'{ "dtype":"float32" }'


def test_a_config_without_a_dtype_gets_none():
    assert json.loads(config_with_dtype(b'{"a": 1}', "f16")) == {"a": 1}


@pytest.mark.parametrize("raw", [b"not json", b"[]"])
def test_a_broken_config_is_refused_when_it_has_to_change(raw):
    with pytest.raises(CheckpointFormatError, match=r"config\.json"):
        config_with_dtype(raw, "bf16")
    assert config_with_dtype(raw, "keep") == raw
