"""Files that pass every gate and make no model: the task fails with a reason, the worker lives."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ckptmerge.errors import ModelLoadError
from ckptmerge.evaluation.models import load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "step-1"
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def copied(folder: Path, to: Path, **changes: object) -> Path:
    """Copy a checkpoint with fields of its configuration replaced."""
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    config = json.loads((to / "config.json").read_text()) | changes
    (to / "config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 10**9},
        {"hidden_size": 10**18},
        {"intermediate_size": 10**12},
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**12},
        {"vocab_size": 128},
        {"vocab_size": -1},
        {"num_attention_heads": 0},
        {"num_attention_heads": 10**9},
        {"hidden_size": "32"},
        {"hidden_size": [32]},
        {"hidden_size": 16},
        {"num_hidden_layers": 1.5},
        {"hidden_act": "os.system"},
        {"rope_parameters": {"rope_type": "evil"}},
        {"model_type": "evil"},
        {"model_type": "../../evil"},
        {"model_type": "mixtral", "num_local_experts": 10**9},
        {"architectures": ["Evil"], "model_type": None},
    ],
    ids=str,
)
def test_a_configuration_of_another_model_is_refused_with_a_reason(
    llama: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(ModelLoadError) as refused:
        load_model(copied(llama, tmp_path / "step-1", **changes), device=CPU)
    assert str(tmp_path) in str(refused.value)


def test_masks_of_a_giant_are_refused(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    assert load_model(tmp_path / "gpt2", device=CPU).context == 32
    with pytest.raises(ModelLoadError, match="describes a model of"):
        load_model(copied(tmp_path / "gpt2", tmp_path / "step-1", n_positions=10**8), device=CPU)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors: tensors.pop("model.norm.weight"),
        lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}),
        lambda tensors: tensors.clear() or tensors.update(w=torch.ones(1)),
    ],
    ids=["missing", "of another shape", "all others"],
)
def test_weights_of_another_model_are_refused_with_a_reason(
    llama: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], object]
) -> None:
    folder = copied(llama, tmp_path / "step-1")
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError):
        load_model(folder, device=CPU)


def test_a_pickle_is_not_loaded_in_the_place_of_weights_under_another_name(
    llama: Path, tmp_path: Path
) -> None:
    """transformers would take it, and score other bytes than those that were verified."""
    folder = copied(llama, tmp_path / "step-1")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(ModelLoadError, match="safetensors"):
        load_model(folder, device=CPU)
