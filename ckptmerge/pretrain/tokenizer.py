"""The tokenizer of a reference run: byte-level BPE, learnt from the training text alone."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
"""Stands between two texts in training."""
END_OF_TEXT_ID = 0
"""Its token: special tokens are numbered first."""

SMALLEST_VOCABULARY = 257
"""One token a byte, so that no text is unknown, and the end of text."""


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn at most ``vocabulary`` tokens from ``texts``; the same texts give the same tokens.

    Encoding adds no special token. There is no length limit: longer documents are the business of
    whoever scores them, and no reason for a warning.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
