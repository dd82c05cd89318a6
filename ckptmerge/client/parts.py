"""A large file to a service in parts, so that a cut connection costs one part and not the file.

The requests are those of draft-ietf-httpbis-resumable-upload: an upload is begun, appended to, and
asked how far it has come where that is not known.
"""

import base64
from collections.abc import Iterator
from pathlib import Path

from ckptmerge.client.partial_file import BLOCK, Progress
from ckptmerge.client.session import Session
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError, ServiceError

PART = 8 * 2**20
"""Bytes of one append: what a cut may cost."""

_UNKNOWN = frozenset({404, 405, 501})
"""What a service answers that takes no files in parts."""

_PASSING = frozenset({None, 408, 409, 429, 500, 502, 503, 504})
"""How an append may fail that another, from where the upload has come to, may not."""


def upload_in_parts(
    session: Session, path: Path, *, size: int, digest: Digest, progress: Progress
) -> bool:
    """Bring a file's bytes to the service.

    Returns:
        False where the service only takes files whole, or has lost what had come.

    Raises:
        InvalidInputError: the file changes meanwhile.
        OSError: the file cannot be read.
        ServiceError: the service refuses, or takes no more bytes.
    """
    address = _begin(session, size, digest)
    if address is None:
        return False
    try:
        _Upload(session, path, address, size, progress).finish()
    except ServiceError as error:
        # The service has lost the upload; maybe in the moment in which it was complete.
        if error.status != 404:
            raise
        return session.exists(f"/v1/blobs/{digest}")
    return True


def blocks(path: Path, start: int, end: int, progress: Progress) -> Iterator[bytes]:
    """Read a part of a file in blocks, each counted once the connection has taken it.

    Raises:
        InvalidInputError: the file ends before.
    """
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < end and (block := file.read(min(BLOCK, end - start))):
            yield block
            start += len(block)
            progress.reach(start)
    if start < end:
        raise InvalidInputError(
            f"{path} became shorter while it was sent; wait until nobody writes to it"
        )


class _Upload:
    """An upload that has begun."""

    def __init__(
        self, session: Session, path: Path, address: str, size: int, progress: Progress
    ) -> None:
        self._session = session
        self._path = path
        self._address = address
        self._size = size
        self._progress = progress
        self._complete = False
        self._offset = 0

    def finish(self) -> None:
        """Append part by part, for as long as every few tries bring something new."""
        tried, furthest = 0, 0
        while not self._complete:
            try:
                self._append()
            except ServiceError as error:
                if error.status not in _PASSING:
                    raise
                self._look()
                tried = 0 if self._offset > furthest else tried + 1
                if tried >= self._session.patience.attempts and not self._complete:
                    raise
            else:
                tried = 0
            furthest = max(furthest, self._offset)
            if tried:
                self._session.pause(tried)

    def _append(self) -> None:
        """Append the next part; once, for what came of it may have been kept."""
        start, end = self._offset, min(self._offset + PART, self._size)
        headers = {
            "Content-Type": "application/partial-upload",
            "Content-Length": str(end - start),
            "Upload-Offset": str(start),
            "Upload-Complete": "?1" if end == self._size else "?0",
        }
        part = blocks(self._path, start, end, self._progress)
        self._session.tell("PATCH", self._address, headers, body=part)
        self._offset, self._complete = end, end == self._size

    def _look(self) -> None:
        """Ask how far the upload has come."""
        said = self._session.tell("HEAD", self._address, {})
        offset = said.get("Upload-Offset", "")
        if not offset.isdecimal():
            raise ServiceError(f"{self._address} does not say how far it has come; send it whole")
        self._offset = int(offset)
        self._complete = said.get("Upload-Complete") == "?1"


def _begin(session: Session, size: int, digest: Digest) -> str | None:
    """Begin an upload and return its address; None where the service has no such thing."""
    hashed = base64.b64encode(bytes.fromhex(digest.hex)).decode()
    headers = {
        "Upload-Complete": "?0",
        "Upload-Length": str(size),
        "Repr-Digest": f"sha-256=:{hashed}:",
    }
    try:
        return session.tell("POST", "/v1/uploads", headers).get("Location")
    except ServiceError as error:
        if error.status in _UNKNOWN:
            return None
        raise
