"""Studies to measure on: one after the other over the same checkpoints, each as if the first."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from ckptmerge.client.client import GOING, Client
from ckptmerge.config.study import StudySpec
from ckptmerge.wire.runs import WindowPolicySpec
from ckptmerge.workflow.ask import design_within

RUN = "benchmark"
_NEVER = 10**6
"""Checkpoints after which the run would open a study by itself."""


class Studies:
    """Opens studies of one run by hand, and ends them."""

    def __init__(self, client: Client, checkpoints: tuple[Path, ...]) -> None:
        self._client = client
        policy = WindowPolicySpec(size=len(checkpoints), every=_NEVER)
        self._client.create_run(RUN, window=policy)
        for folder in checkpoints:
            self._client.push(folder, run=RUN)
        self._opened = 0

    @contextmanager
    def study(self, window: int, budget: int = 24) -> Iterator[int]:
        """Open a study whose initial design is queued, and end it with the block; gives its number.

        The context differs, so no score of an earlier study is one of this study's.
        """
        self._opened += 1
        spec = StudySpec(
            space="pair" if window == 2 else "simplex", budget=budget, context=64 + self._opened
        )
        study = self._client.open_study(RUN, window=window, study=spec)
        while self._client.study(study.id).trials < len(design_within(window, budget)):
            sleep(0.01)
        yield self._opened
        if self._client.study(study.id).state in GOING:
            self._client.cancel_study(study.id)
