"""4. On the worker: form a candidate in memory, score it, write nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.weights import MergeWeights, Weights
from ckptmerge.errors import ModelLoadError
from ckptmerge.evaluation.loss import document_losses
from ckptmerge.evaluation.models import BoundModel, load_model, round_parameters
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.evaluation.tokens import TokenizedSet
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.merging.resident import ResidentWindow

LOAD_TOLERANCE = 1e-4
"""Nats a token by which a resident model may differ from ``from_pretrained`` of the same bytes."""

ROUNDING = {"bf16": torch.bfloat16, "f16": torch.float16}


class WindowEvaluator:
    """Scores candidates of one window, whose checkpoints stay in memory.

    Candidates are rounded to the output dtype, so that what is scored is what would be written.
    """

    def __init__(
        self, folders: Sequence[Path], *, device: torch.device, dtype: OutputDtype = "keep"
    ) -> None:
        """Load the checkpoints, oldest first, and the model of the newest.

        Raises:
            ModelLoadError: transformers cannot build the model.
            IncompatibleCheckpointsError: the checkpoints are not of one model.
        """
        self._device = device
        self._resident = ResidentWindow(
            [open_checkpoint(folder) for folder in folders], device=device, dtype=dtype
        )
        model = load_model(folders[-1], device=device)
        if dtype in ROUNDING:
            round_parameters(model.module, through=ROUNDING[dtype])
        self.vocabulary = model.vocabulary
        self.context = model.context
        self._size = len(folders)
        self.form(MergeWeights.vertex(self._size, -1))
        self._model = BoundModel(model, self._resident.tensors)

    @property
    def shares_memory(self) -> bool:
        """Whether a candidate is the model at once, or the model is rebuilt for each."""
        return self._model.shared

    def form(self, weights: Weights) -> None:
        """Make ``weights`` the candidate that the model holds."""
        self._resident.form(weights)

    def score(
        self,
        weights: Weights,
        documents: TokenizedSet,
        *,
        reverse: bool = False,
        on_passages: Callable[[int], None] | None = None,
    ) -> DocumentScores:
        """Form a candidate and return its losses by document."""
        self.form(weights)
        return document_losses(
            self._model.module,
            documents,
            device=self._device,
            vocabulary=self.vocabulary,
            reverse=reverse,
            on_passages=on_passages,
        )

    def check_load(self, weights: Weights, folder: Path, documents: TokenizedSet) -> float:
        """Compare the resident candidate with its bytes on disk, loaded the way users load them.

        Returns the difference in nats a token.

        Raises:
            ModelLoadError: they differ by more than 1e-4: the resident model is not the model that
                the bytes are.
        """
        resident = self.score(weights, documents)
        loaded = score_files(folder, documents, device=self._device)
        difference = abs(float(resident.nats.sum() - loaded.nats.sum())) / int(loaded.tokens.sum())
        if not difference <= LOAD_TOLERANCE:
            raise ModelLoadError(
                f"the model in memory and from_pretrained({folder}) differ by {difference:.2e} "
                "nats a token, so no score of this study can be trusted; please report the model's "
                "architecture"
            )
        return difference


def score_files(
    folder: Path,
    documents: TokenizedSet,
    *,
    device: torch.device,
    on_passages: Callable[[int], None] | None = None,
) -> DocumentScores:
    """Load a checkpoint with from_pretrained and return its losses by document."""
    model = load_model(folder, device=device)
    return document_losses(
        model.module,
        documents,
        device=device,
        vocabulary=model.vocabulary,
        on_passages=on_passages,
    )
