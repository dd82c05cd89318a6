"""A request's body on its way into the blob store, in bounded memory.

Everything that can be refused is refused before the first byte of the body is asked for: a client
that waits for ``100 Continue`` then sends none of it (RFC 9110, section 10.1.1).
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import BlobStore, BlobWriter

BUFFER = 2**20
"""Bytes handed to the disk at once."""

SILENCE_SECONDS = 60.0
"""How long a client may pause in the middle of a body; the server itself waits for ever."""

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
    request: Request, blobs: BlobStore, *, size: int, expected: Digest | None
) -> Digest:
    """Store the body of a request, durably, and return its digest.

    Args:
        request: Whose body it is; nothing of it has been read.
        blobs: Where it goes.
        size: Bytes announced.
        expected: Their digest, where announced.

    Raises:
        ClientDisconnect: the client left; nothing is kept.
        DigestMismatchError: the bytes are not those that were announced.
        HTTPException: the client fell silent (408).
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
                disk, lambda: held.enter_context(blobs.writer(size=size, expected=expected))
            )
            await _pump(request, writer, disk)
            return await loop.run_in_executor(disk, writer.commit)
        finally:
            await loop.run_in_executor(disk, held.close)


async def _pump(request: Request, writer: BlobWriter, disk: ThreadPoolExecutor) -> None:
    """Hand the body to the disk buffer by buffer, at most so many ahead of it."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    buffer = bytearray()
    try:
        async for chunk in _chunks(request):
            buffer += chunk
            if len(buffer) >= BUFFER:
                waiting.append(loop.run_in_executor(disk, writer.write, buffer))
                buffer = bytearray()
            if len(waiting) > _DEPTH:
                await waiting.pop(0)
        waiting.append(loop.run_in_executor(disk, writer.write, buffer))
    finally:
        results = await asyncio.gather(*waiting, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Pass a body on as it comes, for as long as it comes."""
    body = request.stream()
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                chunk = await anext(body, None)
        except TimeoutError:
            raise HTTPException(
                408, f"no more of the body came in {SILENCE_SECONDS:.0f} s; send it again", _HANG_UP
            ) from None
        if chunk is None:
            return
        yield chunk
