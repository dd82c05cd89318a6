"""A request's body on its way into the blob store, in bounded memory.

Everything that can be refused is refused before the first byte of the body is asked for: a client
that waits for ``100 Continue`` then sends none of it (RFC 9110, section 10.1.1).
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import TooLargeError
from ckptmerge.storage.blobs import BlobStore, BlobWriter

BUFFER = 2**20
"""Bytes handed to the disk at once."""

_DEPTH = 2
"""Buffers that may wait for the disk; past that the client is made to wait."""


def announced(request: Request, *, at_most: int) -> int:
    """Return the length that the client has announced.

    Raises:
        HTTPException: none was announced (411).
        TooLargeError: it is more than is allowed.
    """
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise HTTPException(411, "say how long the body is (Content-Length)")
    if int(length) > at_most:
        raise TooLargeError(f"a body of {int(length):,} bytes; at most {at_most:,} are taken")
    return int(length)


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
        DigestMismatchError: the bytes are not those that were announced.
        TooLargeError: more came than were announced.
        TruncatedFileError: fewer did.
        OutOfSpaceError: the disk cannot hold them.
    """
    loop = asyncio.get_running_loop()
    # One thread for one body: a hop to another thread for every chunk costs a third of the speed.
    with ThreadPoolExecutor(1, "ckptmerge-upload") as disk:
        writer = await loop.run_in_executor(
            disk, lambda: blobs.writer(size=size, expected=expected)
        )
        try:
            await _pump(request, writer, disk)
            return await loop.run_in_executor(disk, writer.commit)
        finally:
            await loop.run_in_executor(disk, writer.__exit__, None, None, None)


async def _pump(request: Request, writer: BlobWriter, disk: ThreadPoolExecutor) -> None:
    """Hand the body to the disk buffer by buffer, at most so many ahead of it."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    buffer = bytearray()
    try:
        async for chunk in request.stream():
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
