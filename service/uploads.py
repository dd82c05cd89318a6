"""A request's body on its way into the blob store, in bounded memory.

Everything that can be refused is refused before the first byte of the body is asked for: a client
that waits for ``100 Continue`` then sends none of it (RFC 9110, section 10.1.1).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.partial import PartialBlob
from service.settings import Deadlines
from service.turns import Turn

BUFFER = 2**20
"""Bytes handed to the disk at once."""

_DEPTH = 2
"""Buffers that may wait for the disk; past that the client is made to wait."""

_HANG_UP = {"Connection": "close"}
"""What is left of a refused body is not read to its end, which may be terabytes away."""


def announced(request: Request, *, at_most: int) -> int:
    """Return the length that the client has announced.

    Raises:
        HTTPException: none was announced (411), or more than is allowed (413).
    """
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal()):
        raise HTTPException(411, "say how long the body is (Content-Length)", _HANG_UP)
    digits = length.lstrip("0") or "0"
    # Python refuses to read a number of thousands of digits; no limit has twenty.
    if len(digits) >= 20 or int(digits) > at_most:
        raise HTTPException(
            413,
            f"a body of {digits[:30]} bytes is too large; at most {at_most} are taken",
            _HANG_UP,
        )
    return int(digits)


async def receive(
    request: Request,
    blobs: BlobStore,
    *,
    size: int,
    expected: Digest | None,
    deadlines: Deadlines,
    beside: int = 0,
) -> Digest:
    """Store the body of a request, durably, and return its digest.

    Args:
        request: Whose body it is; nothing of it has been read.
        blobs: Where it goes.
        size: Bytes announced.
        expected: Their digest, where announced.
        deadlines: How long the client is waited for.
        beside: Bytes that uploads in parts have been promised room for.

    Raises:
        ClientDisconnect: the client left; nothing is kept.
        DigestMismatchError: the bytes are not those that were announced.
        HTTPException: the client fell silent, or was too slow (408).
        TooLargeError: more came than were announced.
        TruncatedFileError: fewer did.
        OutOfSpaceError: the disk cannot hold them.
    """
    loop = asyncio.get_running_loop()
    # One thread for one body: a hop to another thread for every chunk costs a third of the speed.
    with ThreadPoolExecutor(1, "ckptmerge-upload") as disk:
        held = ExitStack()
        try:
            # Held on the thread itself: a request that is cancelled here never sees the writer.
            writer = await loop.run_in_executor(
                disk,
                lambda: held.enter_context(
                    blobs.writer(size=size, expected=expected, beside=beside)
                ),
            )
            await _pump(_chunks(request, deadlines), writer.write, disk)
            return await loop.run_in_executor(disk, writer.commit)
        finally:
            await loop.run_in_executor(disk, held.close)


@dataclass(frozen=True)
class Appended:
    """What an append came to."""

    offset: int
    """Bytes that the upload has now, all of them durable."""
    digest: Digest | None
    """Of the blob that it has become."""
    cut: Exception | None
    """Why no more came of the body than did."""


async def append(
    request: Request,
    opened: Callable[[], PartialBlob],
    *,
    size: int,
    last: bool,
    turn: Turn,
    deadlines: Deadlines,
) -> Appended:
    """Add the body of a request to a partial blob, durably, or as much of it as comes.

    Args:
        request: Whose body it is; nothing of it has been read.
        opened: Opens the partial blob, away from the event loop.
        size: Bytes that the upload has with all of the body.
        last: Whether it becomes a blob then.
        turn: With the upload; whoever is in a hurry ends the append.
        deadlines: How long the client is waited for.

    Raises:
        DigestMismatchError: the bytes are not those that were announced; all are removed.
        MissingError: what came before is not there any more.
        TooLargeError: more came than were announced.
        OutOfSpaceError: the disk cannot hold them; none of these is kept.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, "ckptmerge-append") as disk:
        held = ExitStack()
        try:
            partial = await loop.run_in_executor(disk, lambda: held.enter_context(opened()))
            cut: Exception | None = None
            try:
                async with turn.stoppable():
                    await _pump(_chunks(request, deadlines), partial.write, disk)
            except (ClientDisconnect, HTTPException, TimeoutError) as error:
                cut = error
            if last and partial.position == size:
                return Appended(size, await loop.run_in_executor(disk, partial.commit), cut)
            return Appended(await loop.run_in_executor(disk, partial.keep), None, cut)
        finally:
            await loop.run_in_executor(disk, held.close)


async def _pump(
    chunks: AsyncIterator[bytes], write: Callable[[bytearray], None], disk: ThreadPoolExecutor
) -> None:
    """Hand the body to the disk buffer by buffer, at most so many ahead of it.

    What has come is handed on also where no more does: an upload that goes on later keeps it.
    """
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    buffer = bytearray()
    try:
        async for chunk in chunks:
            buffer += chunk
            if len(buffer) >= BUFFER:
                waiting.append(loop.run_in_executor(disk, write, buffer))
                buffer = bytearray()
            if len(waiting) > _DEPTH:
                # Shielded: a buffer that is not written must not let the next one follow the last.
                await asyncio.shield(waiting[0])
                waiting.pop(0)
    finally:
        waiting.append(loop.run_in_executor(disk, write, buffer))
        results = await asyncio.gather(*waiting, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _chunks(request: Request, deadlines: Deadlines) -> AsyncIterator[bytes]:
    """Pass a body on as it comes, for as long as it comes fast enough.

    Only the time that is spent waiting for the client counts: a body that the disk holds up is
    not slow.
    """
    body, clock = request.stream(), asyncio.get_running_loop().time
    waited, came = 0.0, 0
    while True:
        began = clock()
        try:
            async with asyncio.timeout(deadlines.silence_seconds):
                chunk = await anext(body, None)
        except TimeoutError:
            raise HTTPException(
                408,
                f"no more of the body came in {deadlines.silence_seconds:g} s; send it again",
                _HANG_UP,
            ) from None
        if chunk is None:
            return
        waited, came = waited + clock() - began, came + len(chunk)
        yield chunk
        if waited >= deadlines.slow_seconds:
            _require_speed(came / waited, deadlines.slowest_body)
            waited, came = 0.0, 0


def _require_speed(found: float, slowest: int) -> None:
    if found < slowest:
        raise HTTPException(
            408,
            f"the body came with {found:,.0f} bytes a second, and at least {slowest:,} are asked "
            "for; send it over a faster line",
            _HANG_UP,
        )
