"""A large blob to the service and back: against hashing it, and against the disk.

All limits are measured in the same rounds. An upload cannot be faster than the slower of one core's
SHA-256 and the disk's write with fsync, for the service does both. What is read back lies in the
page cache, for the service as for the limit, which reads the same bytes and hashes them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from time import sleep
from typing import TypeVar

import numpy as np

from ckptmerge.client.blobs import download, upload
from ckptmerge.client.session import Session
from ckptmerge.domain.digest import Digest
from tests.benchmarks import disk
from tests.benchmarks.latency import latencies, p99, timed
from tests.benchmarks.raw_http import connected, get, get_part, pinging, put
from tests.benchmarks.served import Served
from tests.benchmarks.table import Row, median, verdict

PART = "service"
BLOCK = 2**20
SIZE = 488 * BLOCK
"""512 MB."""

ROUNDS, AT_ONCE, RANGES = 3, 4, 200

_ALONE = 2.0
"""Seconds for which others ask while nothing else happens."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Where bytes go, what bounds that, and what it is held to."""

    method: str
    function: str
    """Of the client."""
    limits: tuple[str, ...]
    """Of raw HTTP, by name: whatever comes is thrown away."""
    client_limits: tuple[str, ...]
    """Of the client, which makes what comes durable."""
    one: float
    """Bytes a second of one stream, at least."""
    several: float
    """Of several at once, together."""
    memory: int
    """Bytes over idle, at most."""


UPLOAD = Direction(
    method="PUT",
    function="upload()",
    limits=("sha256", "write with fsync"),
    client_limits=("sha256", "write with fsync"),
    one=120e6,
    several=140e6,
    memory=64 * 2**20,
)
DOWNLOAD = Direction(
    method="GET",
    function="download()",
    limits=("read with sha256",),
    client_limits=("read with sha256", "write with fsync"),
    one=500e6,
    several=700e6,
    memory=32 * 2**20,
)

ANSWER = 0.1
"""Target: seconds that 99 of a hundred answers to others take meanwhile, at most."""


@dataclass(frozen=True)
class Payload:
    """Bytes that no service has seen: one block over and over, which no disk looks for."""

    block: bytes
    digest: Digest

    @classmethod
    def drawn(cls, seed: int, hashing: list[float]) -> "Payload":
        """Draw one, and keep the seconds of its SHA-256."""
        block = np.random.default_rng(seed).bytes(BLOCK)
        return cls(block, timed(hashing, lambda: _digest(block)))

    def put(self, url: str) -> None:
        """Send it to a service."""
        put(url, self.digest, SIZE, self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """Yield it block by block."""
        return (self.block for _ in range(SIZE // BLOCK))

    def write(self, path: Path) -> None:
        """Write it to the disk, and wait for that."""
        with path.open("wb", buffering=0) as sink:
            for block in self.blocks():
                sink.write(block)
        disk.flush(path.parent)


def _digest(block: bytes) -> Digest:
    hashed = hashlib.sha256()
    for _ in range(SIZE // BLOCK):
        hashed.update(block)
    return Digest(hashed.hexdigest())


@dataclass
class _Figures:
    """Seconds by what was measured, and how the service fared meanwhile."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    idle: int = 0
    """Bytes of memory before the first transfer."""
    peak: int = 0
    """Most bytes since then."""
    answers: list[float] = field(default_factory=list)
    """Seconds of requests by others."""

    @contextmanager
    def beside(self, service: Served) -> Iterator[None]:
        """Watch memory and answers to others while a block runs."""
        self.idle = self.idle or service.begin_peak()
        with pinging(service.url, self.answers):
            yield
        self.peak = service.peak()


def rows(service: Served) -> Iterator[Row]:
    """Measure, and yield the rows."""
    alone: list[float] = []
    with pinging(service.url, alone):
        sleep(_ALONE)
    file = service.folder / "client" / "payload"
    file.parent.mkdir()
    with Session(service.url) as session:
        print("service: uploads", flush=True)
        up = _uploads(service, session, file)
        yield from _rows(UPLOAD, up, alone)
        print("service: downloads", flush=True)
        digest = _digest_of(file)
        down = _downloads(service, session, file, digest)
        down.seconds["write with fsync"] = up.seconds["write with fsync"]
        yield from _rows(DOWNLOAD, down, alone)
        yield _ranges(service, digest)


def _uploads(service: Served, session: Session, file: Path) -> _Figures:
    """Measure one stream in rounds, then several at once; what the client sent lasts in a file."""
    figures, seeds = _Figures(), count()

    def drawn() -> Payload:
        return Payload.drawn(next(seeds), figures.seconds["sha256"])

    for _ in range(ROUNDS):
        payload, other = drawn(), drawn()
        with figures.beside(service):
            timed(figures.seconds["raw"], partial(payload.put, service.url))
        timed(figures.seconds["write with fsync"], partial(other.write, file))
        timed(figures.seconds["client"], partial(upload, session, file))
    payloads = [drawn() for _ in range(AT_ONCE)]
    with figures.beside(service):
        timed(
            figures.seconds["several"],
            partial(_at_once, lambda each: each.put(service.url), payloads),
        )
    return figures


def _downloads(service: Served, session: Session, file: Path, digest: Digest) -> _Figures:
    """Measure one stream in rounds, then several at once."""
    figures, target = _Figures(), file.with_name("downloaded")
    get_all = partial(get, service.url, size=SIZE)
    address = f"/v1/blobs/{digest}"
    fetch = partial(download, session, address, target, size=SIZE, digest=digest)
    for _ in range(ROUNDS):
        timed(figures.seconds["read with sha256"], partial(_digest_of, file))
        with figures.beside(service):
            timed(figures.seconds["raw"], partial(get_all, digest))
        timed(figures.seconds["client"], fetch)
        target.unlink()
    with figures.beside(service):
        timed(figures.seconds["several"], partial(_at_once, get_all, [digest] * AT_ONCE))
    return figures


def _at_once(run: Callable[[T], object], subjects: Sequence[T]) -> None:
    with ThreadPoolExecutor(len(subjects)) as threads:
        list(threads.map(run, subjects))


def _rows(direction: Direction, figures: _Figures, alone: Sequence[float]) -> Iterator[Row]:
    """Hold one direction's figures against its limits."""
    transfer = f"{direction.method} of a 512 MB blob"
    for name, what, times, aim in (
        ("raw", f"{transfer}, one stream", 1, direction.one),
        ("client", f"the same by the client's {direction.function}", 1, None),
        ("several", f"{transfer}, {AT_ONCE} at once, in total", AT_ONCE, direction.several),
    ):
        taken = figures.seconds[name]
        limits = direction.client_limits if name == "client" else direction.limits
        slowest = max(median(figures.seconds[limit]) for limit in limits)
        yield Row(
            part=PART,
            what=f"{what} (more is better)",
            ours=_rate(taken, times),
            against=", ".join(f"{limit} {_rate(figures.seconds[limit])}" for limit in limits),
            ratio=f"{times * slowest / median(taken):.2f}",
            target="" if aim is None else f">= {aim / 1e6:.0f} MB/s",
            met="" if aim is None else verdict(times * SIZE / median(taken) >= aim),
        )
    growth = figures.peak - figures.idle
    yield Row(
        part=PART,
        what=f"memory of the service over idle during {direction.method}, at most",
        ours=f"{growth / 2**20:.0f} MiB",
        against=f"idle {figures.idle / 2**20:.0f} MiB",
        ratio=f"{growth / figures.idle:.2f}",
        target=f"<= {direction.memory / 2**20:.0f} MiB",
        met=verdict(growth <= direction.memory),
    )
    yield Row(
        part=PART,
        what=f"GET /healthz during {direction.method}",
        ours=latencies(figures.answers),
        against=f"otherwise {latencies(alone)}",
        ratio=f"{median(figures.answers) / median(alone):.1f} (p50)",
        target=f"p99 <= {ANSWER * 1e3:.0f} ms",
        met=verdict(p99(figures.answers) <= ANSWER),
    )


def _ranges(service: Served, digest: Digest) -> Row:
    """Ask for a block here and there, as whoever reads one tensor does."""
    taken: list[float] = []
    hashing: list[float] = []
    places = np.random.default_rng(0).integers(SIZE // BLOCK, size=RANGES).tolist()
    with connected(service.url) as connection:
        for place in places:
            content = timed(taken, partial(get_part, connection, digest, place * BLOCK, BLOCK))
            timed(hashing, partial(hashlib.sha256, content))
    return Row(
        part=PART,
        what="GET of a random 1 MiB of the blob (206)",
        ours=latencies(taken),
        against=f"sha256 of 1 MiB {latencies(hashing)}",
        ratio=f"{median(taken) / median(hashing):.1f} (p50)",
    )


def _rate(taken: Sequence[float], times: int = 1) -> str:
    """Write bytes a second, of the median, with its range where there is one."""
    middle, *ends = (times * SIZE / s / 1e6 for s in (median(taken), max(taken), min(taken)))
    between = f" ({ends[0]:.0f} to {ends[1]:.0f})" if len(taken) > 1 else ""
    return f"{middle:.0f} MB/s{between}"


def _digest_of(file: Path) -> Digest:
    with file.open("rb") as source:
        return Digest(hashlib.file_digest(source, "sha256").hexdigest())
