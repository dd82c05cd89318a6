"""A checkpoint's step comes from its trainer, else from its name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckptmerge.errors import CheckpointFormatError, InvalidInputError, NonFiniteTensorError
from ckptmerge.formats.step import step_and_tokens
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from ckptmerge.workflow.blob_files import laid_out
from ckptmerge.workflow.register import (
    missing_side_files,
    register,
    register_in_order,
)


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
    folder = tmp_path / "final"
    folder.mkdir()
    save_file({"w": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(InvalidInputError, match="which training step"):
        register(folder)
    assert register(folder, step=3).step == 3


def checkpoint(folder: Path, value: float) -> Path:
    folder.mkdir()
    save_file({"w": torch.full((8,), float(value))}, folder / "model.safetensors")
    return folder


def test_checkpoints_are_put_in_the_order_of_training(tmp_path: Path) -> None:
    steps = (30, 4, 200, 1)
    paths = [checkpoint(tmp_path / f"step-{step}", step) for step in steps]
    heard: list[int] = []
    registered = register_in_order(paths, on_bytes=heard.append)
    assert [each.step for each in registered] == sorted(steps)
    assert [each.label for each in registered] == [
        str(tmp_path / f"step-{step}") for step in sorted(steps)
    ]
    assert heard == [32] * 4


def test_the_content_can_be_had_without_the_identity(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "step-1", 1)
    whole, content = register(path).manifest, register(path, identify=False).manifest
    assert content.tensors == whole.tensors
    assert content.content == whole.content
    with pytest.raises(ValueError, match="not been digested"):
        _ = content.digest


def test_one_bad_checkpoint_ends_the_reading_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckptmerge.formats.manifest.BLOCK", 4)
    bad = checkpoint(tmp_path / "step-1", float("nan"))
    paths = [bad, *(checkpoint(tmp_path / f"step-{n}", n) for n in range(2, 30))]
    heard: list[int] = []
    with pytest.raises(NonFiniteTensorError, match="w"):
        register_in_order(paths, on_bytes=heard.append)
    assert sum(heard) < 29 * 32


def test_a_folder_that_blobs_are_laid_out_in_says_no_step() -> None:
    """Its name is random, and a number in it would be taken for the training step."""
    for _ in range(20):
        with laid_out(MemoryBlobStore(), []) as folder:
            assert step_and_tokens(folder) == (None, None)
