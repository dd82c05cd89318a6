"""What a worker waits for: a lease, a heartbeat, taking an outcome, and hearing of new work.

Alone, and while twenty other workers wait for work that does not come: all of them are woken and
look again whenever there may be some.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from time import perf_counter, sleep

from ckptmerge.client.session import Patience, Session
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import ServiceError
from ckptmerge.wire.leases import LeaseRequest, LeaseResource, Outcome, Renewal
from tests.benchmarks.known_loss import KnownLoss
from tests.benchmarks.latency import latencies, timed
from tests.benchmarks.pausing_worker import WINDOW
from tests.benchmarks.served import Served
from tests.benchmarks.studies import Studies
from tests.benchmarks.table import Row, median

PART = "service"
STUDIES, TASKS = 20, 14
"""A study of eight queues fifteen tasks at once; the last is left, so that nothing is proposed."""

HANDOVERS, OTHERS, COMMITS = 100, 20, 200

_WAIT = 20.0
"""Seconds that a worker's request for work stays open."""

_SETTLED = 0.03
"""Seconds after which a request for work has surely begun to wait."""

_RECORD = 2000
"""Bytes of a row to commit, as of a leased task's."""

Figures = dict[str, list[float]]


def rows(service: Served, studies: Studies, held_out: Path) -> Iterator[Row]:
    """Measure, and yield the rows; leaves workers waiting that end with the service."""
    with Session(service.url) as session:
        print("service: leases", flush=True)
        alone = _measured(service, session, studies, held_out)
        print(f"service: leases beside {OTHERS} waiting workers", flush=True)
        with _others(service):
            crowded = _measured(service, session, studies, held_out)
    floor = _floor(service)
    for name in alone:
        for figures, beside in ((alone, ""), (crowded, f", beside {OTHERS} waiting workers")):
            yield Row(
                part=PART,
                what=f"{name}{beside}",
                ours=latencies(figures[name]),
                against=f"GET /healthz and a commit to SQLite {latencies(floor)}",
                ratio=f"{median(figures[name]) / median(floor):.1f} (p50)",
            )


def _measured(service: Served, session: Session, studies: Studies, held_out: Path) -> Figures:
    figures: Figures = defaultdict(list)
    for _ in range(STUDIES):
        with studies.study(WINDOW) as number:
            loss = KnownLoss(held_out, WINDOW, seed=number)
            for _ in range(TASKS):
                _task(session, loss, figures)
    with studies.study(2) as number, Session(service.url) as another:
        for _ in range(2):  # of three: both ends and their midpoint
            _task(session, KnownLoss(held_out, 2, seed=number), defaultdict(list))
        _hand_over(session, another, figures["long poll: from giving a task back to its lease"])
    return figures


def _task(session: Session, loss: KnownLoss, figures: Figures) -> None:
    """Do a task as a worker does, each step timed; the figures' order is that of the table."""
    lease = timed(figures["POST /v1/leases, with work"], lambda: _lease(session, "measured"))
    address, renewal = f"/v1/leases/{lease.id}", Renewal(fence=lease.fence)
    timed(figures["heartbeat"], lambda: session.json("PUT", address, renewal))
    content = loss.scores(MergeWeights(tuple(lease.weights or ()))).to_bytes()
    digest = str(Digest.of_bytes(content))
    timed(
        figures[f"PUT of scores, {len(content) / 1e3:.0f} kB"],
        lambda: session.put(f"/v1/blobs/{digest}", lambda: [content], size=len(content)),
    )
    again = digest if lease.repeat else None
    outcome = Outcome(fence=lease.fence, status="ok", scores=digest, repeated=again)
    timed(figures["outcome"], lambda: session.json("POST", f"{address}/outcome", outcome))


def _lease(session: Session, worker: str) -> LeaseResource:
    wanted = LeaseRequest(worker=worker, wait=_WAIT, kinds=("evaluate",))
    answer = session.json("POST", "/v1/leases", wanted, timeout=2 * _WAIT)
    return LeaseResource.model_validate(answer)


def _hand_over(one: Session, other: Session, taken: list[float]) -> None:
    """Give the only task that is left back and forth between two workers, and time each handing.

    From the request that gives the task back, so what the service does to record it is included.
    """
    holder, waiting = (one, "one"), (other, "other")
    held = _lease(*holder)
    for _ in range(HANDOVERS):
        heard: Queue[tuple[LeaseResource, float]] = Queue()
        thread = Thread(target=_hear, args=(*waiting, heard))
        thread.start()
        sleep(_SETTLED)
        begin = perf_counter()
        holder[0].json("DELETE", f"/v1/leases/{held.id}", params={"fence": held.fence})
        held, end = heard.get(timeout=2 * _WAIT)
        thread.join()
        taken.append(end - begin)
        holder, waiting = waiting, holder


def _hear(session: Session, worker: str, heard: Queue[tuple[LeaseResource, float]]) -> None:
    heard.put((_lease(session, worker), perf_counter()))


@contextmanager
def _others(service: Served) -> Iterator[None]:
    """Let other workers wait, for work of a kind that nobody has."""
    over = Event()
    threads = [
        Thread(target=_wait_in_vain, args=(service.url, number, over), daemon=True)
        for number in range(OTHERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()


def _wait_in_vain(url: str, number: int, over: Event) -> None:
    wanted = LeaseRequest(worker=f"other-{number}", wait=_WAIT, kinds=("materialise",))
    # The service may have ended before the last request for work has.
    with Session(url, patience=Patience(attempts=1)) as session, suppress(ServiceError):
        while not over.is_set():
            session.json("POST", "/v1/leases", wanted, timeout=2 * _WAIT)


def _floor(service: Served) -> list[float]:
    """Return what each step takes at least: an answer, and one durable change."""
    answers: list[float] = []
    commits: list[float] = []
    database = sqlite3.connect(service.folder / "floor.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE records (key INTEGER PRIMARY KEY, body TEXT)")
    body = "x" * _RECORD
    with Session(service.url) as session:
        for _ in range(COMMITS):
            timed(answers, lambda: session.json("GET", "/healthz"))
            timed(commits, lambda: database.execute("REPLACE INTO records VALUES (1, ?)", (body,)))
    database.close()
    return [answer + commit for answer, commit in zip(answers, commits, strict=True)]
