"""A checkpoint's step comes from its trainer, else from its name."""

import json
from pathlib import Path

import pytest

from ckptmerge.errors import CheckpointFormatError, InvalidInputError
from ckptmerge.workflow.register import missing_side_files, register, step_and_tokens


@pytest.mark.parametrize(
    ("name", "step"), [("step-00600", 600), ("checkpoint-20_v2", 2), ("run7", 7), ("final", None)]
)
def test_the_last_integer_of_the_name_is_the_step(
    name: str, step: int | None, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    assert step_and_tokens(tmp_path / name)[0] == step


def test_trainer_state_wins(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    state = {"global_step": 500, "num_input_tokens_seen": 4096}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    assert step_and_tokens(folder) == (500, 4096)
    (folder / "trainer_state.json").write_text("{}")
    with pytest.raises(CheckpointFormatError, match="global_step"):
        step_and_tokens(folder)


def test_what_is_missing_beside_the_weights_is_named(tmp_path: Path) -> None:
    assert missing_side_files(tmp_path) == ("config.json", "tokenizer")
    (tmp_path / "config.json").touch()
    (tmp_path / "tokenizer.json").touch()
    assert missing_side_files(tmp_path) == ()


def test_a_checkpoint_without_a_step_is_asked_for_one(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "final"
    folder.mkdir()
    save_file({"w": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(InvalidInputError, match="which training step"):
        register(folder)
    assert register(folder, step=3).step == 3
