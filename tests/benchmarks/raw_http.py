"""Requests with as little of a client as there can be, so that what they cost is the service's."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from threading import Event, Thread
from urllib.parse import urlsplit

from ckptmerge.domain.digest import Digest
from tests.benchmarks.latency import timed

_PAUSE = 0.01
"""Seconds between two requests to /healthz."""

_TIMEOUT = 120.0
"""Seconds of silence."""

_BUFFER = 2**20
"""Bytes read at once."""


def put(url: str, digest: Digest, size: int, blocks: Iterator[bytes]) -> None:
    """Send a blob that the service has not seen."""
    with connected(url) as connection:
        connection.putrequest("PUT", f"/v1/blobs/{digest}")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        for block in blocks:
            connection.send(block)
        _answered(connection, 201).read()


def get(url: str, digest: Digest, size: int) -> None:
    """Read a blob, and do nothing with it."""
    with connected(url) as connection:
        connection.request("GET", f"/v1/blobs/{digest}")
        answer, buffer, taken = _answered(connection, 200), bytearray(_BUFFER), 0
        while count := answer.readinto(buffer):
            taken += count
    _require_whole(taken, size)


def get_part(connection: HTTPConnection, digest: Digest, start: int, size: int) -> bytes:
    """Return a range of a blob."""
    headers = {"Range": f"bytes={start}-{start + size - 1}"}
    connection.request("GET", f"/v1/blobs/{digest}", headers=headers)
    content = _answered(connection, 206).read()
    _require_whole(len(content), size)
    return content


@contextmanager
def pinging(url: str, answers: list[float]) -> Iterator[None]:
    """Ask whether the service is alive while a block runs; keep the seconds of every answer."""
    over = Event()
    thread = Thread(target=_ping, args=(url, answers, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def connected(url: str) -> Iterator[HTTPConnection]:
    """Open a connection that is kept until the end of the block."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT)
    try:
        yield connection
    finally:
        connection.close()


def _ping(url: str, answers: list[float], over: Event) -> None:
    with connected(url) as connection:
        while not over.wait(_PAUSE):
            timed(answers, partial(_alive, connection))


def _alive(connection: HTTPConnection) -> None:
    connection.request("GET", "/healthz")
    _answered(connection, 200).read()


def _answered(connection: HTTPConnection, status: int) -> HTTPResponse:
    """Return the answer.

    Raises:
        RuntimeError: it has another status: what was measured is not what was to be measured.
    """
    answer = connection.getresponse()
    if answer.status != status:
        raise RuntimeError(f"the service answered {answer.status}, not {status}: {answer.read()!r}")
    return answer


def _require_whole(taken: int, size: int) -> None:
    if taken != size:
        raise RuntimeError(f"{taken:,} of {size:,} bytes came")
