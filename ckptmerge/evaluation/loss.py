"""Per-document losses of a causal language model."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ckptmerge.evaluation.scores import DocumentScores, require_losses
from ckptmerge.evaluation.tokens import Passage, TokenizedSet

LOGITS_AT_ONCE = {"cpu": 2**22, "cuda": 2**27}
"""Numbers in one batch's logits, by device: on a CPU what its caches hold (16 MiB in float32;
64 MiB were measured 1.4 times slower), on a GPU enough to fill it (512 MiB)."""


@torch.inference_mode()
def document_losses(
    module: nn.Module,
    tokenized: TokenizedSet,
    *,
    device: torch.device,
    vocabulary: int,
    reverse: bool = False,
    on_passages: Callable[[int], None] | None = None,
) -> DocumentScores:
    """Score every document: the sum over its scored tokens of -ln p(token | passage so far).

    Passages are batched by length and padded at the end; padding cannot reach a scored token in a
    causal model, so no attention mask is needed. Logits are read in float32 and summed in float64.
    ``reverse`` batches in another order, which changes nothing but the kernels' rounding.

    Raises:
        NonFiniteLossError: a document's loss is NaN, infinite or beyond all measure.
    """
    nats = np.zeros(len(tokenized.documents))
    logits = LOGITS_AT_ONCE.get(device.type, LOGITS_AT_ONCE["cpu"])
    for batch in _batches(
        tokenized.passages, logits=logits, vocabulary=vocabulary, reverse=reverse
    ):
        losses = _passage_losses(module, batch, device=device)
        np.add.at(nats, [passage.document for passage in batch], losses)
        if on_passages is not None:
            on_passages(len(batch))
    scores = DocumentScores.of(
        tokenized.documents,
        nats=nats,
        bytes=np.array(tokenized.bytes, dtype=np.int64),
        tokens=np.array(tokenized.tokens, dtype=np.int64),
    )
    require_losses(scores)
    return scores


def _passage_losses(
    module: nn.Module, batch: Sequence[Passage], *, device: torch.device
) -> np.ndarray:
    lengths = torch.tensor([len(passage.ids) for passage in batch])
    width = int(lengths.max())
    ids = torch.tensor([[*p.ids, *(0 for _ in range(width - len(p.ids)))] for p in batch])
    if device.type == "cuda":
        ids = ids.pin_memory().to(device, non_blocking=True)
    logits = module(input_ids=ids, use_cache=False).logits.float()  # [batch, width, V]
    following = torch.cat([ids[:, 1:], ids.new_zeros(len(ids), 1)], dim=1)
    # Flat rows: over a transposed view the softmax would stride through memory, 1.3 times slower.
    losses = functional.cross_entropy(
        logits.flatten(0, 1), following.flatten(), reduction="none"
    ).view(ids.shape)
    scored = torch.arange(1, width + 1)[None, :] < lengths[:, None]  # [batch, width]
    return losses.double().cpu().masked_fill(~scored, 0).sum(dim=1).numpy()


def _batches(
    passages: Sequence[Passage], *, logits: int, vocabulary: int, reverse: bool
) -> Iterator[Sequence[Passage]]:
    """Cut passages, ordered by length, into batches whose padded logits stay below ``logits``."""
    ordered = sorted(passages, key=lambda passage: len(passage.ids), reverse=not reverse)
    start = 0
    while start < len(ordered):
        stop, widest = start, 0
        while stop < len(ordered):
            widest = max(widest, len(ordered[stop].ids))
            if stop > start and widest * vocabulary * (stop - start + 1) > logits:
                break
            stop += 1
        yield ordered[start:stop]
        start = stop
