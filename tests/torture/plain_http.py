"""HTTP/1.1 with as little of a client as there can be: cheap by the hundred, and strict.

It tells apart an answer that breaks off in the middle, which nobody may ever see, and a connection
that ends before anything of an answer came, which is what a client repeats its request for.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

BLOCK = 2**18
"""Bytes read or sent at once."""

JSON = "application/json"
_EXPECT = {"Expect": "100-continue"}
PROBLEM = "application/problem+json"


class CutError(Exception):
    """An answer broke off in the middle."""


class UnansweredError(Exception):
    """The connection ended, or never came about, before anything of an answer came."""


@dataclass(frozen=True)
class Answer:
    """What the service said."""

    status: int
    headers: Mapping[str, str]
    """By name, in small letters."""
    content: bytes

    def json(self) -> Any:
        """Return the content as what it stands for."""
        return json.loads(self.content)

    @property
    def sends_away(self) -> bool:
        """Whether it is a polite refusal of what is too much: when to come again, and why."""
        return (
            self.status in {429, 503}
            and self.headers.get("retry-after", "").isdecimal()
            and self.headers.get("content-type") == PROBLEM
        )


@dataclass
class Line:
    """One connection, made when it is needed and kept; a context manager."""

    url: str
    _ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(
        default=None, init=False
    )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None

    async def ask(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None
    ) -> Answer:
        """Ask, with a body of JSON or of bytes, and hear the whole answer.

        Raises:
            UnansweredError: there is none.
            CutError: it broke off.
        """
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        kind = "application/octet-stream" if raw is not None else JSON
        return await self.send(method, path, [content], size=len(content), kind=kind)

    async def send(
        self, method: str, path: str, blocks: Iterable[bytes], *, size: int, kind: str = JSON,
        pace: float | None = None, unbidden: bool = True,
    ) -> Answer:  # fmt: skip
        """Send a body of so many bytes, at most ``pace`` of them a second, and hear the answer.

        Args:
            method: Of the request.
            path: Where to.
            blocks: The body.
            size: Bytes of it.
            kind: Its media type.
            pace: Bytes a second at most.
            unbidden: Whether to send it without waiting for ``100 Continue``.

        Raises:
            UnansweredError: there is none.
            CutError: it broke off.
        """
        reader, writer = await self._ready()
        headers = {"Content-Length": str(size), "Content-Type": kind}
        writer.write(self._head(method, path, headers if unbidden else {**headers, **_EXPECT}))
        status, said = (100, {}) if unbidden else await self._heard(reader)
        if status == 100:
            await self._pour(writer, blocks, pace)
            status, said = await self._heard(reader)
        return Answer(status, said, b"".join([part async for part in self._body(said)]))

    async def _pour(
        self, writer: asyncio.StreamWriter, blocks: Iterable[bytes], pace: float | None
    ) -> None:
        begin, sent = time.monotonic(), 0
        # Whoever refuses a body hangs up; the answer may be there all the same.
        with suppress(OSError):
            for block in blocks:
                writer.write(block)
                await writer.drain()
                sent += len(block)
                await _keep_to(pace, sent, begin)

    async def take(self, path: str, *, pace: float | None = None) -> tuple[Answer, int]:
        """Take a file, at most ``pace`` bytes a second; return its answer's head, and its length.

        Raises:
            UnansweredError: there is no answer.
            CutError: it broke off.
        """
        reader, writer = await self._ready()
        writer.write(self._head("GET", path, {}))
        status, headers = await self._heard(reader)
        begin, taken, kept = time.monotonic(), 0, b""
        async for part in self._body(headers):
            taken += len(part)
            kept = part if status >= 400 else b""
            await _keep_to(pace, taken, begin)
        return Answer(status, headers, kept), taken

    async def follow(self, path: str) -> AsyncIterator[bytes]:
        """Yield what comes of a stream until the service ends it.

        Raises:
            UnansweredError: there is no answer.
            CutError: it was not the service that ended it.
        """
        reader, writer = await self._ready()
        writer.write(self._head("GET", path, {}))
        _, headers = await self._heard(reader)
        async for part in self._body(headers):
            yield part

    def _head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        named = {"Host": urlsplit(self.url).netloc, **headers}
        lines = (f"{name}: {value}\r\n" for name, value in named.items())
        return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()

    async def _ready(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._ends is None:
            address = urlsplit(self.url)
            try:
                self._ends = await asyncio.open_connection(
                    address.hostname, address.port, limit=2 * BLOCK
                )
            except OSError as error:
                raise UnansweredError(f"cannot connect: {error}") from error
        return self._ends

    async def _heard(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        """Read the head of an answer."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError) as error:
            self.close()
            begun = isinstance(error, asyncio.IncompleteReadError) and error.partial
            raise (CutError if begun else UnansweredError)(f"no answer: {error}") from error
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return int(first.split()[1]), headers

    async def _body(self, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Yield the content of an answer, to its very end."""
        assert self._ends is not None
        reader = self._ends[0]
        try:
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    yield (await reader.readexactly(size + 2))[:-2]
                await reader.readexactly(2)
            left = int(headers.get("content-length", "0"))
            while left:
                part = await _some(reader, min(left, BLOCK))
                left -= len(part)
                yield part
        except (asyncio.IncompleteReadError, OSError) as error:
            self.close()
            raise CutError(f"an answer broke off: {error}") from error
        if headers.get("connection", "").lower() == "close":
            self.close()


async def _some(reader: asyncio.StreamReader, most: int) -> bytes:
    part = await reader.read(most)
    if not part:
        raise asyncio.IncompleteReadError(b"", most)
    return part


async def _keep_to(pace: float | None, moved: int, begin: float) -> None:
    """Wait until so many bytes may have been moved."""
    if pace is not None:
        await asyncio.sleep(max(0.0, begin + moved / pace - time.monotonic()))
