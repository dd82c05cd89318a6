"""Blobs on their way out, as RFC 9110 has it: ranges, conditions, and names that never change.

A blob's entity tag is its digest, which is a strong validator: equal tags are equal bytes.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import BlobReader

CHUNK = 2**20
"""Bytes read and sent at once."""

_RANGE = re.compile(r"bytes=(?:([0-9]+)-([0-9]*)|-([0-9]+))", re.IGNORECASE)

_CACHE = {
    "immutable": "public, max-age=31536000, immutable",
    "no-cache": "no-cache",
}


def blob_response(
    request: Request,
    open_blob: Callable[[], BlobReader],
    *,
    digest: Digest,
    filename: str,
    media_type: str = "application/octet-stream",
    cache: Literal["immutable", "no-cache"] = "immutable",
) -> Response:
    """Answer GET or HEAD with a blob, whole or in part.

    One range is served; several, and what is no range of bytes, are ignored, which section 14.2
    allows. Conditions are looked at in the order of section 13.2.2.

    Raises:
        MissingError: there is no such blob.
    """
    tag = f'"{digest.hex}"'
    validators = {"ETag": tag, "Cache-Control": _CACHE[cache]}
    if "if-match" in request.headers and not _lists(request.headers["if-match"], tag, weak=False):
        return Response(status_code=412, headers=validators)
    none_match = request.headers.get("if-none-match")
    if none_match is not None and _lists(none_match, tag, weak=True):
        return Response(status_code=304, headers=validators)
    reader = open_blob()
    first, last = 0, reader.size - 1
    headers = {
        **validators,
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(digest.hex)).decode()}:",
        "Content-Disposition": f'attachment; filename="{filename}"',
        "X-Content-Type-Options": "nosniff",
    }
    status = 200
    wanted = _range(request, tag, reader.size)
    if wanted == "unsatisfiable":
        reader.__exit__(None, None, None)
        headers["Content-Range"] = f"bytes */{reader.size}"
        return Response(status_code=416, headers=headers)
    if wanted is not None:
        status, (first, last) = 206, wanted
        headers["Content-Range"] = f"bytes {first}-{last}/{reader.size}"
    headers["Content-Length"] = str(last - first + 1)
    if request.method == "HEAD":
        reader.__exit__(None, None, None)
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(
        _content(reader, first, last + 1),
        status_code=status,
        headers=headers,
        media_type=media_type,
    )


async def _content(reader: BlobReader, start: int, stop: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    with reader:  # closed here also when the client has gone
        for offset in range(start, stop, CHUNK):
            size = min(CHUNK, stop - offset)
            yield await loop.run_in_executor(None, reader.read, offset, size)


def _range(
    request: Request, tag: str, size: int
) -> tuple[int, int] | Literal["unsatisfiable"] | None:
    """Return the first and last byte that are asked for; None where all are to be sent."""
    asked = request.headers.get("range")
    if asked is None or request.method != "GET":
        return None
    if request.headers.get("if-range", tag).strip() != tag:
        return None
    match = _RANGE.fullmatch(asked.strip())
    return None if match is None else _within(size, *match.groups())


def _within(
    size: int, first: str, last: str, suffix: str | None
) -> tuple[int, int] | Literal["unsatisfiable"] | None:
    """Cut a range to the bytes that there are (section 14.1.2); None where it is none."""
    if suffix is not None:
        return (max(size - int(suffix), 0), size - 1) if int(suffix) and size else "unsatisfiable"
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        return "unsatisfiable"
    return int(first), min(int(last), size - 1) if last else size - 1


def _lists(header: str, tag: str, *, weak: bool) -> bool:
    """Say whether a list of entity tags names this one; weakly, ``W/`` makes no difference."""
    if header.strip() == "*":
        return True
    tags = [part.strip() for part in header.split(",")]
    return tag in (part.removeprefix("W/") if weak else part for part in tags)
