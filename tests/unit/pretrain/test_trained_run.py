"""The trained runs have the properties for which other tests take them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ckptmerge.evaluation.documents import load_held_out


class Run(Protocol):
    """What `trained_run` and its siblings are."""

    checkpoints: tuple[Path, ...]
    bf16: tuple[Path, ...]
    held_out: Path


@torch.no_grad()
def loss(folders: Sequence[Path], held_out: Path) -> float:
    """Nats a token of the folders' uniform average, on the first window of every third document."""
    parts = [load_file(folder / "model.safetensors") for folder in folders]
    mean = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
    model = AutoModelForCausalLM.from_pretrained(folders[-1])
    model.load_state_dict(mean, strict=False)  # the output shares the embedding's tensor
    tokenizer = AutoTokenizer.from_pretrained(folders[-1])
    documents = load_held_out(held_out).documents[::3]
    rows = [tokenizer(document.text)["input_ids"][:64] for document in documents]
    batch = torch.tensor([row for row in rows if len(row) == 64])
    return model(input_ids=batch, labels=batch).loss.item()


@pytest.fixture(scope="module")
def newest(trained_run: Run) -> float:
    return loss(trained_run.checkpoints[-1:], trained_run.held_out)


@pytest.mark.parametrize("last", [2, 3])
def test_at_a_constant_rate_the_average_beats_the_newest(
    trained_run: Run, newest: float, last: int
):
    assert loss(trained_run.checkpoints[-last:], trained_run.held_out) < newest - 0.03


def test_too_long_an_average_is_worse(trained_run: Run, newest: float):
    assert loss(trained_run.checkpoints[-8:], trained_run.held_out) > newest


def test_after_annealing_the_average_gains_nothing(cosine_run: Run):
    newest = loss(cosine_run.checkpoints[-1:], cosine_run.held_out)
    for last in (2, 3):
        assert loss(cosine_run.checkpoints[-last:], cosine_run.held_out) > newest - 0.01


def test_two_seeds_do_not_merge(trained_run: Run, other_run: Run, newest: float):
    other = loss(other_run.checkpoints[-1:], trained_run.held_out)
    assert abs(other - newest) < 0.3  # both are trained
    both = [trained_run.checkpoints[-1], other_run.checkpoints[-1]]
    assert loss(both, trained_run.held_out) > max(newest, other) + 0.5


def test_the_bf16_copies_are_the_same_weights_rounded(trained_run: Run):
    assert [path.name for path in trained_run.bf16] == [p.name for p in trained_run.checkpoints]
    for single, half in zip(trained_run.checkpoints, trained_run.bf16, strict=True):
        rounded = load_file(half / "model.safetensors")
        for name, tensor in load_file(single / "model.safetensors").items():
            assert torch.equal(rounded[name], tensor.bfloat16())
        assert {path.name for path in half.iterdir()} == {path.name for path in single.iterdir()}
    assert AutoModelForCausalLM.from_pretrained(trained_run.bf16[-1]).dtype is torch.bfloat16
