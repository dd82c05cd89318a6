"""Lines to a server on this machine on which things go wrong, the same things for the same seed.

Two of them, both context managers with a ``url`` to give to clients in place of the server's:

- `CutLine` carries bytes: it cuts connections after so many of them, is slow, and comes late.
- `LossyLine` carries HTTP messages: it delivers requests and loses their answers, and delivers
  requests twice. Whether a message is spared can be said by its method and path.

>>> with LossyLine("http://127.0.0.1:8117", seed=1, lost=0.2, twice=0.2) as line:
...     with Client(line.url) as client:
...         ...  # every fifth answer is lost, every fifth request comes twice
"""

import asyncio
import socket
import struct
import threading
from abc import ABC, abstractmethod
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import NoReturn, Self
from urllib.parse import urlsplit

BLOCK = 2**16
"""Bytes carried at once."""

_LARGEST_HEAD = 2**18


class _Line(ABC):
    """A proxy on loopback with an event loop and a thread of its own."""

    def __init__(self, upstream: str, *, seed: int) -> None:
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "127.0.0.1", address.port or 80)
        self._random = Random(seed)  # noqa: S311 - chaos is no secret
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos")
        self.url = ""
        """Where clients find the server through this line."""

    def __enter__(self) -> Self:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        self._server = await asyncio.start_server(
            self._answer, "127.0.0.1", 0, limit=_LARGEST_HEAD, backlog=512
        )
        return self._server

    async def _hang_up(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._carry(reader, writer)
        except asyncio.CancelledError:
            return  # the line is taken down; asyncio would call that an error of this callback
        finally:
            writer.close()

    @abstractmethod
    async def _carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Bring a client and the server together, until one of them leaves."""


class CutLine(_Line):
    """Carries bytes both ways, and resets both ends of a connection in the middle of them.

    Args:
        upstream: Address of the server.
        seed: Of everything that is drawn.
        cuts: Connections to cut; after so many the line holds.
        after: A connection is cut when it has carried a number of bytes, both ways together,
            that is drawn from this stretch. What carries less is never cut.
        rate: Bytes a second of each connection and direction; as fast as it goes if None.
        delay: Longest seconds that a connection waits before it stands, drawn for each.
    """

    def __init__(
        self, upstream: str, *, seed: int, cuts: int = 0, after: tuple[int, int] = (1, 2**20),
        rate: int | None = None, delay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(upstream, seed=seed)
        self._after = after
        self._rate = rate
        self._delay = delay
        self._left = cuts
        self.cuts = 0
        """Connections cut so far."""
        self.up = 0
        """Bytes carried to the server so far."""
        self.down = 0
        """Bytes carried back so far."""

    async def _carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        left, wait = self._random.randint(*self._after), self._random.uniform(0, self._delay)
        await asyncio.sleep(wait)
        far_reader, far_writer = await asyncio.open_connection(*self._upstream)
        connection = _Connection(left, (writer, far_writer))
        try:
            await asyncio.gather(
                self._copy(reader, far_writer, connection, "up"),
                self._copy(far_reader, writer, connection, "down"),
            )
        finally:
            far_writer.close()

    async def _copy(
        self, reader: StreamReader, writer: StreamWriter, connection: "_Connection", way: str
    ) -> None:
        # A slow line takes little at once, so that it is slow from the first byte on.
        size = BLOCK if self._rate is None else max(1, min(BLOCK, self._rate // 50))
        while block := await reader.read(size):
            passing = block[: connection.left] if self._left else block
            connection.left -= len(passing)
            setattr(self, way, getattr(self, way) + len(passing))
            writer.write(passing)
            await writer.drain()
            if connection.left <= 0 < self._left:
                self._left -= 1
                self.cuts += 1
                _reset(*connection.ends)
            if self._rate is not None:
                await asyncio.sleep(len(passing) / self._rate)
        if writer.can_write_eof():
            writer.write_eof()


@dataclass
class _Connection:
    left: int
    """Bytes until it is cut."""
    ends: tuple[StreamWriter, StreamWriter]


def _reset(*ends: StreamWriter) -> NoReturn:
    """End connections as a line that fails does: no farewell, and what was on its way is lost."""
    for end in ends:
        end.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        end.transport.abort()
    raise ConnectionResetError


class LossyLine(_Line):
    """Carries one request and its answer at a time; loses answers, delivers requests twice.

    A request is read whole before the server sees it, and a connection carries one. Where the
    answer is lost, the server has done what it was asked, and the client sees its connection
    reset. Where a request comes twice, the client gets the second answer.

    Args:
        upstream: Address of the server.
        seed: Of everything that is drawn.
        lost: Share of the answers that are lost.
        twice: Share of the requests that are delivered twice, one after the other.
        unsent: Share of the requests that are lost before the server sees them.
        delay: Longest seconds that a request waits on its way, drawn for each.
        only: Says by method and path (with its query) which requests may suffer; all by default.
    """

    def __init__(
        self, upstream: str, *, seed: int, lost: float = 0.0, twice: float = 0.0,
        unsent: float = 0.0, delay: float = 0.0, only: Callable[[str, str], bool] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(upstream, seed=seed)
        self._shares = (lost, twice, unsent)
        self._delay = delay
        self._only = only or (lambda _method, _path: True)
        self.requests = 0
        """Requests that came from clients."""
        self.lost = 0
        """Answers that were lost."""
        self.twice = 0
        """Requests that the server got twice."""
        self.unsent = 0
        """Requests that the server never got."""

    async def _carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        request = await _read_request(reader, writer)
        self.requests += 1
        wait = self._random.uniform(0, self._delay)
        drawn = [self._random.random() < share for share in self._shares]
        may = self._only(request.method, request.path)
        lost, twice, unsent = (may and hit for hit in drawn)
        await asyncio.sleep(wait)
        self.unsent += unsent
        if unsent:
            _reset(writer)
        self.twice += twice
        if twice:
            await self._deliver(request, None)
        self.lost += lost
        await self._deliver(request, None if lost else writer)
        if lost:
            _reset(writer)

    async def _deliver(self, request: "_Request", out: StreamWriter | None) -> None:
        """Ask the server, and pass its answer on as it comes, or nowhere."""
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request.message)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            # The client must not rely on a connection that carries no more (RFC 9112, 9.6).
            block = head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"
            while block:
                if out is not None:
                    out.write(block)
                    await out.drain()
                block = await reader.read(BLOCK)
        finally:
            writer.close()


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    message: bytes
    """All of it, asking for the connection to be closed after the answer."""


async def _read_request(reader: StreamReader, writer: StreamWriter) -> _Request:
    head = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    lines = [(line.partition(b":")[0].lower(), line) for line in rest]
    fields = {name: line.partition(b":")[2].strip().lower() for name, line in lines}
    if fields.get(b"expect") == b"100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await _read_body(reader, fields)
    kept = [line for name, line in lines if name not in {b"connection", b"expect"}]
    message = b"\r\n".join([first, *kept, b"Connection: close", b"", body])
    method, path, _ = first.decode("latin-1").split(" ", 2)
    return _Request(method, path, message)


async def _read_body(reader: StreamReader, fields: Mapping[bytes, bytes]) -> bytes:
    """Return a body as it was sent, in chunks where it came in chunks (RFC 9112, section 7.1)."""
    if fields.get(b"transfer-encoding") != b"chunked":
        return await reader.readexactly(int(fields.get(b"content-length", b"0")))
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        body += size + await reader.readexactly(int(size, 16) + 2)
        if int(size, 16) == 0:
            return body
