"""Checkpoints as large as a benchmark needs: a Llama's layout, random neighbours for weights."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.benchmarks.trained import CACHE

_SPREAD = 0.02
"""Standard deviation of the weights, that of a Llama's initialisation."""

_STEP = 0.002
"""Standard deviation of what changes from one checkpoint to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaLayout:
    """What fixes the tensors of a Llama-style decoder."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    head: int = 64
    """Width of an attention head."""
    tied: bool = False
    """Whether the output layer is the embedding."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor's shape by its name in a Hugging Face file."""
        h, m = self.hidden, self.intermediate
        square = dict.fromkeys((f"self_attn.{part}_proj" for part in "qkvo"), (h, h))
        gated = {"mlp.gate_proj": (m, h), "mlp.up_proj": (m, h), "mlp.down_proj": (h, m)}
        norms = {"input_layernorm": (h,), "post_attention_layernorm": (h,)}
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, h)}
        for layer in range(self.layers):
            for name, shape in (square | gated | norms).items():
                shapes[f"model.layers.{layer}.{name}.weight"] = shape
        shapes["model.norm.weight"] = (h,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocabulary, h)
        return shapes

    def config(self) -> dict[str, object]:
        """Return the model's config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // self.head,
            "num_key_value_heads": self.hidden // self.head,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "dtype": "bfloat16",
        }


@contextmanager
def neighbours(layout: LlamaLayout, count: int, *, room: int) -> Iterator[tuple[Path, ...]]:
    """Write ``count`` bfloat16 checkpoints a small random step apart; remove them at the end.

    Args:
        layout: Of the model.
        count: How many checkpoints; folders ``step-1`` … in one temporary folder.
        room: Free bytes that the benchmark needs on the disk, theirs included.

    Raises:
        OSError: the disk has less room than that.
    """
    # Beside the repository: /tmp may be memory, and then no disk would be measured.
    CACHE.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="benchmark-", dir=CACHE) as holder:
        free = shutil.disk_usage(holder).free
        if free < room:
            raise OSError(
                f"this needs {room / 1e9:.0f} GB free on {holder}, there are {free / 1e9:.0f}"
            )
        yield tuple(
            _write(layout, step, Path(holder) / f"step-{step}") for step in range(1, count + 1)
        )


def _write(layout: LlamaLayout, step: int, folder: Path) -> Path:
    folder.mkdir()
    # Every checkpoint draws the same start from seed 0, so they are neighbours.
    tensors = {
        name: _values(shape, seed=index, step=step)
        for index, (name, shape) in enumerate(layout.shapes().items())
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(layout.config()))
    return folder


def _values(shape: tuple[int, ...], *, seed: int, step: int) -> Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul_(_SPREAD)
    moved = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 10_000 * step))
    return start.add_(moved, alpha=_STEP).to(torch.bfloat16)
