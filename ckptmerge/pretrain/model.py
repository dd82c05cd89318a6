"""The model of a reference run: a small Llama-style decoder with tied embeddings."""

from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ckptmerge.errors import InvalidInputError
from ckptmerge.pretrain.tokenizer import END_OF_TEXT_ID, SMALLEST_VOCABULARY


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What fixes the model's tensors.

    Raises:
        InvalidInputError: the heads do not divide the hidden size into even parts, or the
            vocabulary has no room for every byte.
    """

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    context: int
    """Longest sequence, in tokens."""

    def __post_init__(self) -> None:
        if self.hidden % (2 * self.heads):
            # Rotary embeddings turn pairs of numbers, so each head needs an even width.
            raise InvalidInputError(
                f"{self.heads} heads cannot share a hidden size of {self.hidden}; "
                f"take a multiple of {2 * self.heads}"
            )
        if self.vocabulary < SMALLEST_VOCABULARY:
            raise InvalidInputError(
                f"a vocabulary of {self.vocabulary} tokens cannot spell every byte; "
                f"take at least {SMALLEST_VOCABULARY}"
            )

    @property
    def intermediate(self) -> int:
        """Width of the gated layer: 8/3 of the hidden size, as in Llama, up to 16s."""
        return -(-8 * self.hidden // 48) * 16

    @property
    def parameters(self) -> int:
        """How many numbers the model holds, its tied embedding counted once."""
        attention, gated, norms = 4 * self.hidden**2, 3 * self.hidden * self.intermediate, 2
        layer = attention + gated + norms * self.hidden
        return self.vocabulary * self.hidden + self.layers * layer + self.hidden


def build_model(shape: ModelShape, *, seed: int) -> LlamaForCausalLM:
    """Return a freshly initialised float32 model; the caller's random numbers stay untouched."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_OF_TEXT_ID,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
