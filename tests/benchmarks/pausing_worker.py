"""A real worker whose evaluations are pauses of a stated length, over a loss that is known."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import perf_counter, sleep
from typing import Any

from ckptmerge.client.session import Session
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import RefusedError
from ckptmerge.wire.leases import LeaseResource
from ckptmerge.workflow.ask import design_within
from ckptmerge.workflow.carry_out import Product
from service.worker import Worker
from tests.benchmarks.known_loss import KnownLoss

WINDOW = 8
DESIGN = len(design_within(WINDOW, 24))
"""Candidates of a study's initial design: the proposer is asked after these."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, on the clock of ``perf_counter``."""

    trial: int
    weights: MergeWeights
    begin: float
    end: float


@dataclass
class Bench:
    """Stands in for a worker's device: pauses, and knows the scores."""

    loss: KnownLoss
    design: float
    """Seconds that a candidate of the initial design takes."""
    searched: float
    """Seconds that a proposed candidate takes."""
    stop: Event = field(default_factory=Event)
    done: list[Evaluation] = field(default_factory=list)

    def carry_out(self, lease: LeaseResource, **_: object) -> Product:
        """Pause, and return the scores of a candidate; a search that is over ends the worker.

        Raises:
            RefusedError: it is over; what comes then is not measured here.
        """
        if lease.kind != "evaluate" or lease.trial is None:
            self.stop.set()
            raise RefusedError("this benchmark measures the search, and does no other work")
        begin = perf_counter()
        weights = MergeWeights(tuple(lease.weights or ()))
        scores = self.loss.scores(weights)
        sleep(self.design if lease.trial < DESIGN else self.searched)
        self.done.append(Evaluation(lease.trial, weights, begin, perf_counter()))
        return Product(scores=scores, repeated=scores if lease.repeat else None)


@dataclass(frozen=True)
class Call:
    """One request, from its beginning to its answer."""

    what: str
    begin: float
    end: float


class _Watched(Session):
    """Keeps what a worker asked for, and when."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.calls: list[Call] = []

    def json(self, method: Any, path: str, *given: Any, **named: Any) -> Any:
        with self._watching(f"{method} {path}"):
            return super().json(method, path, *given, **named)

    def put(self, path: str, *given: Any, **named: Any) -> None:
        with self._watching(f"PUT {path}"):
            super().put(path, *given, **named)

    @contextmanager
    def _watching(self, what: str) -> Iterator[None]:
        begin = perf_counter()
        yield
        self.calls.append(Call(what, begin, perf_counter()))


@dataclass(frozen=True)
class Searched:
    """A search's evaluations, in order, and what the worker asked between them."""

    loss: KnownLoss
    done: Sequence[Evaluation]
    calls: Sequence[Call]


def search(url: str, bench: Bench) -> Searched:
    """Let one worker take whatever is to be evaluated, until the search is over."""
    with TemporaryDirectory() as cache, _Watched(url) as session:
        worker = Worker(session, name="searching", device="cpu", cache=Path(cache))
        worker._bench = bench
        worker.run(bench.stop)
    return Searched(bench.loss, bench.done, session.calls)
