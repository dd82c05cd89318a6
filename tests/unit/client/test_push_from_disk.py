"""What is pushed is read off the disk: files, step and tokens."""

import json
from pathlib import Path

from ckptmerge.client.push import checkpoint_files


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
