"""Blobs on their way out, as RFC 9110 has it: ranges, conditions, and names that never change.

A blob's entity tag is its digest, which is a strong validator: equal tags are equal bytes.
"""

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, aclosing
from typing import Literal
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

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
    allows. Conditions are looked at in the order of section 13.2.2; a blob has no date, so those
    on dates are ignored (sections 13.1.3 and 13.1.4).

    Raises:
        MissingError: there is no such blob.
        HTTPException: a condition does not hold (412), or the range lies outside (416).
    """
    tag = f'"{digest.hex}"'
    validators = {"ETag": tag, "Cache-Control": _CACHE[cache]}
    with ExitStack() as opened:
        reader = opened.enter_context(open_blob())
        if _is_unchanged(request, tag):
            return Response(status_code=304, headers=validators)
        headers = {
            **validators,
            "Accept-Ranges": "bytes",
            "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(digest.hex)).decode()}:",
            "Content-Disposition": _disposition(filename),
            "X-Content-Type-Options": "nosniff",
        }
        part = _range(request, tag, reader.size)
        start, stop = part or (0, reader.size)
        headers["Content-Length"] = str(stop - start)
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{reader.size}"
        if request.method == "HEAD":
            return Response(headers=headers, media_type=media_type)
        response = _BlobResponse(
            reader, start, stop, status=206 if part else 200, headers=headers, media_type=media_type
        )
        opened.pop_all()  # the response closes it
        return response


class _BlobResponse(StreamingResponse):
    """Sends a stretch of a blob, and closes the blob whatever becomes of that.

    A client that has gone before the first byte was read ends the response before its body has
    begun, so the body cannot be what closes.
    """

    def __init__(
        self,
        reader: BlobReader,
        start: int,
        stop: int,
        *,
        status: int,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        self._reader = reader
        self._content = _read(reader, start, stop)
        super().__init__(self._content, status, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._reader:
            async with aclosing(self._content):
                await super().__call__(scope, receive, send)


async def _read(reader: BlobReader, start: int, stop: int) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    for offset in range(start, stop, CHUNK):
        size = min(CHUNK, stop - offset)
        yield await loop.run_in_executor(None, reader.read, offset, size)


def _is_unchanged(request: Request, tag: str) -> bool:
    """Say whether the client has these bytes already (section 13.2.2).

    Raises:
        HTTPException: the client wants other bytes than these (412).
    """
    match = _field(request, "if-match")
    if match is not None and not lists_tag(match, tag, weak=False):
        raise HTTPException(
            412, f"the file is {tag} and none of {match[:200]}; ask without If-Match", {"ETag": tag}
        )
    none_match = _field(request, "if-none-match")
    return none_match is not None and lists_tag(none_match, tag, weak=True)


def _range(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """Return the first byte that is asked for and the one after the last; None for all of them.

    Raises:
        HTTPException: there are no such bytes (416).
    """
    asked = _field(request, "range")
    if asked is None or request.method != "GET":
        return None
    if _field(request, "if-range") not in {None, tag}:
        return None
    match = _RANGE.fullmatch(asked)
    part = match and _within(size, *match.groups())
    if part == "unsatisfiable":
        raise HTTPException(
            416,
            f"the file has {size} bytes, and {asked[:100]} lies outside; ask for less",
            {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes", "ETag": tag},
        )
    return part


def _within(
    size: int, first: str | None, last: str, suffix: str | None
) -> tuple[int, int] | Literal["unsatisfiable"] | None:
    """Cut a range to the bytes that there are (section 14.1.2); None where it is none."""
    if suffix is not None:
        if not _number(suffix):
            return "unsatisfiable"
        # The last bytes of nothing are all of it, which no Content-Range can say.
        return (max(size - _number(suffix), 0), size) if size else None
    start = _number(first or "0")
    if last and _number(last) < start:
        return None
    if start >= size:
        return "unsatisfiable"
    return start, min(_number(last) + 1, size) if last else size


def _number(digits: str) -> int:
    """Read a number, cut where it is larger than any file: Python reads no thousands of digits."""
    return int(digits.lstrip("0")[:20] or "0")


def _field(request: Request, name: str) -> str | None:
    """Return a header, its lines joined to one (section 5.3)."""
    lines = request.headers.getlist(name)
    return ", ".join(lines).strip() if lines else None


def lists_tag(header: str, tag: str, *, weak: bool) -> bool:
    """Say whether a list of entity tags names this one; weakly, ``W/`` makes no difference."""
    if header == "*":
        return True
    tags = [part.strip() for part in header.split(",")]
    return tag in (part.removeprefix("W/") if weak else part for part in tags)


def _disposition(filename: str) -> str:
    """Name the file (RFC 6266); what is more than ASCII letters goes in the form of RFC 8187."""
    quoted = quote(filename, safe="")
    if quoted == filename:
        return f'attachment; filename="{filename}"'
    return f"attachment; filename*=UTF-8''{quoted}"
