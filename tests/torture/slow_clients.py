"""Clients that are slow on purpose, a great many of them: each is let go, and nobody waits."""

import select
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import httpx2

from ckptmerge.domain.digest import Digest
from tests.benchmarks.latency import latencies, p99
from tests.benchmarks.raw_http import pinging
from tests.benchmarks.served import Served
from tests.e2e.running import RunningService
from tests.torture.finding import Finding

AREA = "transfers"

MIB = 2**20

CLIENTS = 200

SECONDS = 2
"""Every deadline but that of readers, which is twice that."""

LATEST = 20.0
"""Seconds after which even a machine that is busy with other things has met them all."""

ANSWER = 2.0
"""Seconds that an answer to somebody else takes at most."""

ANSWERS = 50
"""Fewer show nothing."""

PER_READER = 6 * MIB
"""Bytes that the service may hold for a client that takes nothing: one chunk on its way, one read
ahead, and what the allocator keeps of each."""

_LARGE = 32 * MIB
"""More than the kernel's buffers of a connection hold."""

_GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_PUT = (
    b"PUT /v1/blobs/sha256:" + b"0" * 64 + b" HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 1000000\r\n\r\n"
)
_POST = (
    b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n"
)


@dataclass(frozen=True)
class Manner:
    """A way of being slow."""

    name: str
    begins: bytes
    dribbles: bool = False
    """Whether a byte comes now and then."""
    listens: bool = True
    """Whether anything is taken of the answer."""


SILENT_READER = "a silent reader"

MANNERS = (
    Manner("nothing", b""),
    Manner("half a head", _GET[:-2]),
    Manner("a dribbling head", _GET[:-2] + b"X-Long: ", dribbles=True),
    Manner("half a body", _PUT + bytes(1000)),
    Manner("a dribbling body", _PUT, dribbles=True),
    Manner("half of JSON", _POST + b"{"),
    Manner("an idle connection", _GET),
    Manner(
        SILENT_READER,
        b"GET /v1/blobs/DIGEST HTTP/1.1\r\nHost: localhost\r\n\r\n",
        listens=False,
    ),
)


def slow_clients(held_out: Path, scratch: Path) -> Iterator[Finding]:
    """Be slow in every manner at once; then again where there are no deadlines."""
    names = ("HEAD", "KEEP_ALIVE", "JSON", "SILENCE", "SLOW", "STALLED")
    short = {f"{name}_SECONDS": str(SECONDS * (2 if name == "STALLED" else 1)) for name in names}
    long = {f"{name}_SECONDS": "3600" for name in names}
    with _service(held_out, scratch / "short", short) as service:
        yield from _let_go(service)
    with _service(held_out, scratch / "long", long) as service:
        there, _ = _slow(service, patience=2 * SECONDS)
        service.kill()  # it would wait for them
    yield Finding(
        area=AREA,
        promise=f"control: without deadlines, slow clients are there after {2 * SECONDS} s",
        figure=f"{there.total()} of {CLIENTS}",
        held=there.total() == CLIENTS,
    )


def _service(held_out: Path, folder: Path, limits: Mapping[str, str]) -> RunningService:
    folder.mkdir()
    environ = {f"CKPTMERGE_{name}": value for name, value in limits.items()}
    return RunningService(folder, held_out, workers=0, environ=environ)


def _let_go(service: RunningService) -> Iterator[Finding]:
    watched = Served(service, service.folder)
    _large(service)
    idle = watched.begin_peak()
    answers: list[float] = []
    with pinging(service.url, answers):
        left, seconds = _slow(service, patience=LATEST)
    growth, readers = watched.peak() - idle, CLIENTS // len(MANNERS)
    yield Finding(
        area=AREA,
        promise=f"{CLIENTS} slow clients in {len(MANNERS)} manners, deadlines of {SECONDS} to "
        f"{2 * SECONDS} s: all let go",
        figure=f"{CLIENTS - left.total()} within {seconds:.1f} s"
        + (f", left {dict(left)}" if left else ""),
        held=not left,
    )
    yield Finding(
        area=AREA,
        promise=f"meanwhile, 99 of a hundred answers to others within {ANSWER:g} s",
        figure=latencies(answers),
        held=len(answers) >= ANSWERS and p99(answers) <= ANSWER,
    )
    yield Finding(
        area=AREA,
        promise=f"for {readers} clients that take nothing: at most 6 MiB of memory each",
        figure=f"{growth / readers / MIB:.1f} MiB",
        held=growth <= readers * PER_READER,
    )


def _large(service: RunningService) -> Digest:
    """Give the service a blob to be read slowly."""
    content = bytes(_LARGE)
    digest = Digest.of_bytes(content)
    address = f"{service.url}/v1/blobs/{digest}"
    httpx2.put(address, content=content, timeout=60).raise_for_status()
    return digest


def _slow(service: RunningService, *, patience: float) -> tuple[Counter[str], float]:
    """Be slow in all manners, until let go or out of patience.

    Returns:
        How many are still there, by their manner; and the seconds that it took.
    """
    digest, over = _large(service), Event()
    there, began = dict[int, tuple[socket.socket, Manner]](), time.monotonic()
    with ExitStack() as stack:
        watch = select.poll()
        for number in range(CLIENTS):
            manner = MANNERS[number % len(MANNERS)]
            line = stack.enter_context(_connected(service.url))
            line.sendall(manner.begins.replace(b"DIGEST", str(digest).encode()))
            there[line.fileno()] = line, manner
            if manner.listens:
                watch.register(line, select.POLLIN)
        dribbling = [line for line, manner in there.values() if manner.dribbles]
        thread = Thread(target=_dribble, args=(dribbling, over))
        thread.start()
        left = Counter(manner.name for _, manner in there.values())
        while left and time.monotonic() - began < patience:
            for descriptor, event in watch.poll(200):
                line, manner = there[descriptor]
                if event & (select.POLLHUP | select.POLLERR) or not _heard(line):
                    watch.unregister(descriptor)
                    left[manner.name] -= 1
            # A client that takes nothing does not hear either that it has been let go.
            left[SILENT_READER] = _readers(service, digest)
            left = +left
        over.set()
        thread.join()
    return left, time.monotonic() - began


def _readers(service: RunningService, digest: Digest) -> int:
    """Count the answers with this blob that the service is still busy with."""
    (process,) = service.processes("serve --data")
    count = 0
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            count += entry.readlink().name == digest.hex
    return count


def _connected(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)


def _heard(line: socket.socket) -> bytes:
    try:
        return line.recv(2**16)
    except ConnectionResetError:
        return b""


def _dribble(lines: list[socket.socket], over: Event) -> None:
    while not over.wait(0.2):
        for line in lines:
            with suppress(OSError):  # it has been let go
                line.sendall(b"x")
