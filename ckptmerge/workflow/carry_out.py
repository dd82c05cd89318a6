"""On the worker: do what a lease asks for, and keep in memory what the next one will need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import torch

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import InvalidInputError
from ckptmerge.evaluation.documents import HeldOutSet, load_held_out
from ckptmerge.evaluation.loss import document_losses
from ckptmerge.evaluation.models import load_model
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.evaluation.tokens import load_tokenizer, tokenize
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.merging.stream import merge
from ckptmerge.wire.leases import LeaseResource
from ckptmerge.workflow.assess import WindowEvaluator
from ckptmerge.workflow.judge import Judge


@dataclass(frozen=True)
class Product:
    """What came of a lease."""

    scores: DocumentScores | None = None
    repeated: DocumentScores | None = None
    folder: Path | None = None
    """Of a merge that was written."""
    files: tuple[FileEntry, ...] = ()
    seconds: Mapping[str, float] | None = None


class Workbench:
    """A device, and the window and documents that lie ready on it.

    One window at a time: candidates of one study come one after the other, and a window of large
    checkpoints is all that a device holds.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._window: tuple[object, ...] | None = None
        self._judge: Judge | None = None
        self._set: HeldOutSet | None = None

    def carry_out(
        self,
        lease: LeaseResource,
        *,
        checkpoints: Sequence[Path],
        held_out: Path,
        out: Path,
    ) -> Product:
        """Do what the lease asks for.

        Args:
            lease: What it is.
            checkpoints: Where the files of the lease's checkpoints lie, in its order.
            held_out: Where its documents lie.
            out: Folder for a merge to be written; nothing may stand there.

        Raises:
            NonFiniteLossError: a loss is not finite; the candidate is infeasible.
            CkptmergeError: it cannot be done, for the reason given.
        """
        if lease.kind == "evaluate":
            return self._evaluate(lease, checkpoints, held_out)
        if lease.kind == "materialise":
            return self._materialise(lease, checkpoints, held_out, out)
        return self._certify(lease, checkpoints[0], held_out)

    def _evaluate(
        self, lease: LeaseResource, checkpoints: Sequence[Path], held_out: Path
    ) -> Product:
        """Score a candidate formed in memory."""
        clock = _Stopwatch()
        judge = clock.timed("load", lambda: self._judge_of(lease, checkpoints, held_out))
        weights, split = _weights(lease), _split(lease)
        scores = clock.timed("score", lambda: judge.candidate(weights, split))
        again = None
        if lease.repeat:
            again = clock.timed("score", lambda: judge.candidate(weights, split, reverse=True))
        return Product(scores=scores, repeated=again, seconds=clock.seconds)

    def _materialise(
        self, lease: LeaseResource, checkpoints: Sequence[Path], held_out: Path, out: Path
    ) -> Product:
        """Write a merge, and check that its bytes are the candidate that was searched."""
        clock = _Stopwatch()
        weights = _weights(lease)
        recipe = Recipe(
            tuple(Digest.parse(checkpoint.content) for checkpoint in lease.checkpoints),
            weights,
            lease.dtype,
        )
        sources = [open_checkpoint(folder) for folder in checkpoints]
        try:
            artifact = clock.timed(
                "swap", lambda: merge(sources, recipe, out, side_files=checkpoints[-1])
            )
        finally:
            for source in sources:
                source.close()
        judge = clock.timed("load", lambda: self._judge_of(lease, checkpoints, held_out))
        clock.timed("score", lambda: judge.check_load(weights, out))
        return Product(folder=out, files=artifact.manifest.files, seconds=clock.seconds)

    def _certify(self, lease: LeaseResource, folder: Path, held_out: Path) -> Product:
        """Load files as their users would, and score them."""
        clock = _Stopwatch()
        model = clock.timed("load", lambda: load_model(folder, device=self._device))
        documents = tokenize(
            self._documents(lease, held_out).split(_split(lease)),
            tokenizer=load_tokenizer(folder),
            vocabulary=model.vocabulary,
            context=model.context if lease.context is None else lease.context,
        )
        scores = clock.timed(
            "score",
            lambda: document_losses(
                model.module, documents, device=self._device, vocabulary=model.vocabulary
            ),
        )
        return Product(scores=scores, seconds=clock.seconds)

    def _judge_of(self, lease: LeaseResource, checkpoints: Sequence[Path], held_out: Path) -> Judge:
        """Return the judge of the lease's window, loading it where another one lies ready."""
        documents = self._documents(lease, held_out)
        contents = tuple(checkpoint.content for checkpoint in lease.checkpoints)
        window = (contents, lease.dtype, lease.context, documents.digest)
        if self._judge is None or window != self._window:
            self._judge = None  # let go of the old window before the new one is read
            judge = Judge(
                documents,
                WindowEvaluator(checkpoints, device=self._device, dtype=lease.dtype),
                tokenizer=checkpoints[-1],
                context=lease.context,
                device=self._device,
                on_pass=lambda _passes: None,
            )
            judge.check_load(MergeWeights.vertex(len(checkpoints), -1), checkpoints[-1])
            self._judge, self._window = judge, window
        return self._judge

    def _documents(self, lease: LeaseResource, held_out: Path) -> HeldOutSet:
        if lease.held_out is None:
            raise InvalidInputError(f"lease {lease.id} names no held-out set to score on")
        if self._set is None or str(self._set.digest) != lease.held_out.digest:
            self._set = load_held_out(held_out)
        return self._set


T = TypeVar("T")


class _Stopwatch:
    """Adds up seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds = {"load": 0.0, "swap": 0.0, "score": 0.0}

    def timed(self, what: str, work: Callable[[], T]) -> T:
        """Do the work and count its time."""
        begin = perf_counter()
        try:
            return work()
        finally:
            self.seconds[what] += perf_counter() - begin


def _weights(lease: LeaseResource) -> MergeWeights:
    if lease.weights is None:
        raise InvalidInputError(f"lease {lease.id} names no merge weights")
    return MergeWeights(tuple(lease.weights))


def _split(lease: LeaseResource) -> Split:
    if lease.held_out is None:
        raise InvalidInputError(f"lease {lease.id} names no split to score on")
    return Split(lease.held_out.split)
