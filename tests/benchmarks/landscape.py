"""The loss surface of one window, measured for real and never twice in the same place.

The loss of fixed merge weights on fixed documents is deterministic, so strategies that are compared
on one surface may share measurements: a pass counts for each strategy that asks for it, and is made
once.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import LinearConstraint, minimize

from ckptmerge.domain.observation import Objective, Split
from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.evaluation.documents import Document, HeldOutSet, load_held_out
from ckptmerge.evaluation.paired import bits_per_byte
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.workflow.assess import WindowEvaluator
from ckptmerge.workflow.judge import Judge

_STEP = 1e-3
"""Difference in a weight from which a slope is taken: its curvature costs 1e-7 bits per byte, and
float32 noise is a tenth of that."""

_REFINED = 20
"""Steps of a refinement; each takes one pass a free weight and a few more, 200 together."""


class Landscape:
    """Losses of a window's candidates on its search documents."""

    def __init__(self, folders: Sequence[Path], held_out: Path, *, documents: int) -> None:
        """Load the window; ``documents`` is how many of each domain are searched on."""
        device = torch.device("cpu")
        self._judge = Judge(
            HeldOutSet(tuple(_thinned(load_held_out(held_out), documents))),
            WindowEvaluator(folders, device=device),
            tokenizer=folders[-1],
            context=None,
            device=device,
            on_pass=lambda _: None,
        )
        self._known: dict[MergeWeights, DocumentScores] = {}
        newest = MergeWeights.vertex(len(folders), -1)
        self.variance = self._judge.kernel_noise(newest, self.scores(newest), Objective())

    def scores(self, weights: MergeWeights) -> DocumentScores:
        """Return a candidate's losses by document."""
        if weights not in self._known:
            self._known[weights] = self._judge.candidate(weights, Split.SEARCH)
        return self._known[weights]

    def loss(self, weights: MergeWeights) -> float:
        """Return a candidate's bits per byte."""
        return bits_per_byte(self.scores(weights), Objective())

    def lowest(self, space: SearchSpace) -> float:
        """Return the lowest loss in the space: the best that anyone measured, refined from there.

        Sequential quadratic programming over the free weights, its slopes from differences.
        """
        legal = [weights for weights in self._known if space.holds(weights)]
        start = min(legal, key=self.loss)

        def loss(free: np.ndarray) -> float:
            return self.loss(_completed(free))

        minimize(
            loss,
            np.array(start.values[:-1]),
            method="SLSQP",
            bounds=list(zip(space.lower[:-1], space.upper[:-1], strict=True)),
            constraints=LinearConstraint(
                np.ones(space.dimension), 1 - space.upper[-1], 1 - space.lower[-1]
            ),
            options={"eps": _STEP, "ftol": 1e-8, "maxiter": _REFINED},
        )
        return min(self.loss(weights) for weights in self._known if space.holds(weights))


def _completed(free: np.ndarray) -> MergeWeights:
    """Give the newest checkpoint what the others leave."""
    return MergeWeights.of(*free, 1 - float(free.sum()))


def _thinned(held_out: HeldOutSet, documents: int) -> Iterator[Document]:
    """Keep so many search documents a domain, and all of the others, which nobody scores."""
    taken: Counter[str] = Counter()
    for document in held_out:
        if document.split is Split.SEARCH:
            taken[document.domain] += 1
        if document.split is not Split.SEARCH or taken[document.domain] <= documents:
            yield document
