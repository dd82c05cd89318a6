"""A study's documents and model together: whatever is scored, is scored here, and counted."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ckptmerge.domain.observation import Objective, Split
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.evaluation.documents import HeldOutSet
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.evaluation.tokens import load_tokenizer, tokenize
from ckptmerge.workflow.assess import WindowEvaluator, score_files
from ckptmerge.workflow.tell import kernel_noise

CHECKED_DOCUMENTS = 16
"""Documents on which the model in memory is compared with its files."""


class Judge:
    """Scores candidates in memory and checkpoints from their files, split by split."""

    def __init__(
        self,
        documents: HeldOutSet,
        evaluator: WindowEvaluator,
        *,
        tokenizer: Path,
        context: int | None,
        device: torch.device,
        on_pass: Callable[[int], None],
    ) -> None:
        """Tokenize the three splits.

        Raises:
            HeldOutSetError: a split is empty, or its ids are not of this model.
            TokenizerError: the documents cannot be tokenized.
        """
        self._evaluator = evaluator
        self._device = device
        self._on_pass = on_pass
        self._passes: Counter[Split] = Counter()
        loaded = load_tokenizer(tokenizer)
        self._splits = {
            split: tokenize(
                documents.split(split),
                tokenizer=loaded,
                vocabulary=evaluator.vocabulary,
                context=evaluator.context if context is None else context,
            )
            for split in (Split.SEARCH, Split.CERTIFY, Split.AUDIT)
        }

    @property
    def passes(self) -> Mapping[str, int]:
        """Forward passes made so far, by split."""
        return {str(split): self._passes[split] for split in self._splits}

    def candidate(
        self, weights: MergeWeights, split: Split, *, reverse: bool = False
    ) -> DocumentScores:
        """Score a candidate formed in memory."""
        scores = self._evaluator.score(weights, self._splits[split], reverse=reverse)
        self._count(split)
        return scores

    def files(self, folder: Path, split: Split) -> DocumentScores:
        """Score a checkpoint's own bytes, loaded with from_pretrained."""
        scores = score_files(folder, self._splits[split], device=self._device)
        self._count(split)
        return scores

    def check_load(self, weights: MergeWeights, folder: Path) -> None:
        """Check on a few search documents that a candidate in memory is what its files are.

        Raises:
            ModelLoadError: it is not.
        """
        self._evaluator.check_load(
            weights, folder, self._splits[Split.SEARCH].head(CHECKED_DOCUMENTS)
        )

    def kernel_noise(
        self, weights: MergeWeights, first: DocumentScores, objective: Objective
    ) -> float:
        """Measure the variance of scoring one candidate again, its documents batched differently.

        ``first`` are the search split's scores of the same candidate; this makes one more pass.
        """
        again = self.candidate(weights, Split.SEARCH, reverse=True)
        return kernel_noise(first, again, objective)

    def _count(self, split: Split) -> None:
        self._passes[split] += 1
        self._on_pass(1)
