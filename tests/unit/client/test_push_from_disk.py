"""What is pushed is read off the disk: files, step and tokens."""

import json
from pathlib import Path

import pytest

from ckptmerge.client.push import checkpoint_files, step_and_tokens
from ckptmerge.errors import CheckpointFormatError


def test_a_folder_is_its_weights_index_and_side_files(tmp_path: Path) -> None:
    for name in ("a-1.safetensors", "a-2.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}")
    for name in ("optimizer.pt", "model.py", "trainer_state.json", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    homes = {"x": "a-1.safetensors", "y": "a-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    assert list(checkpoint_files(tmp_path)) == [
        "a-1.safetensors", "a-2.safetensors", "config.json", "model.safetensors.index.json",
        "tokenizer.json",
    ]  # fmt: skip


def test_a_single_file_gets_the_name_that_models_have(tmp_path: Path) -> None:
    file = tmp_path / "step-5.safetensors"
    file.touch()
    assert checkpoint_files(file) == {"model.safetensors": file}


@pytest.mark.parametrize(
    ("name", "step"), [("step-00050", 50), ("ckpt7-of-9", 9), ("latest", None)]
)
def test_the_last_integer_of_a_name_is_the_step(
    tmp_path: Path, name: str, step: int | None
) -> None:
    (tmp_path / name).mkdir()
    assert step_and_tokens(tmp_path / name) == (step, None)
    assert step_and_tokens(tmp_path / f"{name}.safetensors") == (step, None)


def test_a_trainers_own_word_wins(tmp_path: Path) -> None:
    state = {"global_step": 8, "num_input_tokens_seen": 4096}
    (tmp_path / "step-7").mkdir()
    (tmp_path / "step-7/trainer_state.json").write_text(json.dumps(state))
    assert step_and_tokens(tmp_path / "step-7") == (8, 4096)


def test_a_trainers_word_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text('{"global_st')
    with pytest.raises(CheckpointFormatError, match="global_step"):
        step_and_tokens(tmp_path)
