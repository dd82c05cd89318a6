"""Workers without torch: they speak the protocol of leases, and know the loss of every model.

A model is a point, and the farther it lies from one place the more it loses, on every document in
the same way. So a lease takes milliseconds, and every score can be computed again by whoever wants
to know whether it is the right one.

Run as ``python -m tests.torture.fake_worker URL NAME HELD_OUT PAUSE`` it is a process that can be
stopped: it does one lease, says so on standard output at each step, and reports whatever happened.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
from safetensors.numpy import load, save

from ckptmerge.client.session import Patience, Session
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Objective, Split
from ckptmerge.errors import ServiceError
from ckptmerge.evaluation.documents import load_held_out
from ckptmerge.evaluation.paired import bits_per_byte
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.wire.leases import LeaseRequest, LeaseResource, Outcome
from ckptmerge.wire.resource import FileRef
from tests.torture.journal import Journal

MODEL = "model.safetensors"
_OPTIMUM = np.array([0.7, 0.2, -0.1], dtype=np.float32)
_SPREAD = 0.3
"""Bits per byte by which documents differ, whatever the model."""


class KnownModels:
    """The loss of every model there can be, on the documents of one held-out set."""

    def __init__(self, held_out: Path) -> None:
        documents = load_held_out(held_out)
        self._splits = {
            split: documents.split(split).documents for split in Split if split != "all"
        }

    def scores(self, point: np.ndarray, split: Split) -> DocumentScores:
        """Return the losses of a model by document."""
        documents = self._splits[split]
        levels = np.random.default_rng(0).normal(2.0, _SPREAD, len(documents))
        away = float(((point.astype(np.float64) - _OPTIMUM) ** 2).sum())
        # Some documents gain more than others, or their mean would be known without an error.
        more = np.random.default_rng(1).uniform(0.5, 1.5, len(documents))
        sizes = np.full(len(documents), 100)
        nats = (levels + away * more) * sizes * np.log(2)
        return DocumentScores.of(documents, nats=nats, bytes=sizes, tokens=sizes // 4)

    def value(self, point: np.ndarray) -> float:
        """Return what a study must come to observe of a model, in bits per byte."""
        return bits_per_byte(self.scores(point, Split.SEARCH), Objective())


def write_checkpoint(folder: Path, step: int) -> Path:
    """Write the model that training has come to at a step."""
    made = folder / f"step-{step}"
    made.mkdir()
    drift = np.random.default_rng(step).normal(0, 0.3, len(_OPTIMUM)) + 20 / step
    (made / MODEL).write_bytes(save({"w": (_OPTIMUM + drift).astype(np.float32)}))
    for name in ("config.json", "tokenizer.json"):
        (made / name).write_text("{}")
    return made


def point_of(folder: Path) -> np.ndarray:
    """Return the model that lies in a folder."""
    return load((folder / MODEL).read_bytes())["w"]


def merged(points: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Merge models as everybody does: one after the other, in float32."""
    total = np.zeros_like(points[0])
    for point, weight in zip(points, weights, strict=True):
        total = total + np.float32(weight) * point
    return total


class FakeWorker:
    """Does leases, one at a time, as a worker beside the service does.

    Args:
        session: Speaks to the service.
        name: What the service calls this worker.
        models: Knows the losses.
        journal: Where outcomes that were acknowledged are written down.
        pace: Called with every lease before it is done.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        models: KnownModels,
        *,
        journal: Journal | None = None,
        pace: Callable[[LeaseResource], None] = lambda _lease: None,
    ) -> None:
        self._session = session
        self._name = name
        self._models = models
        self._journal = journal
        self._pace = pace
        self.done = 0
        """Outcomes that were acknowledged."""

    def run(self, stop: Event, *, wait: float = 0.5) -> None:
        """Do leases until told to stop, whatever becomes of the service meanwhile."""
        while not stop.is_set():
            try:
                lease = self.ask(wait)
            except ServiceError:
                stop.wait(0.05)
                continue
            if lease is not None:
                self._do(lease, stop)

    def ask(self, wait: float = 0.0) -> LeaseResource | None:
        """Ask for work."""
        wanted = LeaseRequest(worker=self._name, wait=wait)
        answer = self._session.json("POST", "/v1/leases", wanted, timeout=wait + 10)
        return None if answer is None else LeaseResource.model_validate(answer)

    def report(self, lease: LeaseResource, outcome: Outcome | None = None) -> None:
        """Hand in what came of a lease, and write down that it was taken."""
        made = outcome or self.outcome(lease)
        self._session.json("POST", f"/v1/leases/{lease.id}/outcome", made)
        self.done += 1
        if self._journal is not None:
            self._journal.say(task=lease.id, fence=lease.fence, scores=made.scores)

    def outcome(self, lease: LeaseResource) -> Outcome:
        """Do what a lease asks for."""
        points = [self._fetched(c.files) for c in lease.checkpoints]
        point = points[0] if lease.weights is None else merged(points, lease.weights)
        if lease.kind == "materialise":
            content = save({"w": point})
            file = FileRef(name=MODEL, size=len(content), digest=self._sent(content))
            return Outcome(fence=lease.fence, status="ok", files=[file])
        assert lease.held_out is not None
        content = self._models.scores(point, Split(lease.held_out.split)).to_bytes()
        digest = self._sent(content)
        again = digest if lease.repeat else None
        return Outcome(fence=lease.fence, status="ok", scores=digest, repeated=again)

    def _do(self, lease: LeaseResource, stop: Event) -> None:
        """Do a lease, and try to hand it in until somebody answers."""
        self._pace(lease)
        while not stop.is_set():
            try:
                return self.report(lease)
            except ServiceError as error:
                if error.status is not None and error.status < 500:
                    return None
                stop.wait(0.05)
        return None

    def _fetched(self, files: Sequence[object]) -> np.ndarray:
        (file,) = [file for file in files if getattr(file, "name", "") == MODEL]
        with self._session.get(getattr(file, "href", ""), headers={}) as answer:
            return load(answer.read())["w"]

    def _sent(self, content: bytes) -> str:
        digest = str(Digest.of_bytes(content))
        self._session.put(f"/v1/blobs/{digest}", lambda: [content], size=len(content))
        return digest


@contextmanager
def working(
    url: str, names: Sequence[str], models: KnownModels, journal: Journal | None = None
) -> Iterator[list[FakeWorker]]:
    """Let workers do leases in threads of this process until the end of the block."""
    stop = Event()
    # Eager: whoever waits for a service that starts again wants to know at once that it has.
    sessions = [Session(url, patience=Patience(attempts=6, first=0.02)) for _ in names]
    workers = [
        FakeWorker(session, name, models, journal=journal)
        for session, name in zip(sessions, names, strict=True)
    ]
    threads = [Thread(target=worker.run, args=(stop,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield workers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for session in sessions:
            session.close()


def main(url: str, name: str, held_out: str, pause: str) -> None:
    """Do one lease, slowly."""
    with Session(url, patience=Patience(attempts=1)) as session:
        worker = FakeWorker(session, name, KnownModels(Path(held_out)))
        lease = None
        while lease is None:
            lease = worker.ask(wait=10)
        print("leased", lease.id, lease.fence, flush=True)
        time.sleep(float(pause))
        try:
            worker.report(lease)
        except ServiceError as error:
            print("refused", error.status, flush=True)
        else:
            print("taken", 200, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
