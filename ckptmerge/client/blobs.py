"""Files to and from a service: streamed at any size, resumed where cut, and verified whole."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from httpx2 import Response
from pydantic import ValidationError

from ckptmerge.client.partial_file import OnBytes, PartialFile, Progress
from ckptmerge.client.parts import blocks, upload_in_parts
from ckptmerge.client.session import BrokenOffError, Session
from ckptmerge.client.write_behind import WriteBehind
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError, OutOfSpaceError, ServiceError
from ckptmerge.wire.resource import FileRef

PARTIAL = ".part"
"""Ending of a file whose download is not complete."""

WHOLE = 64 * 2**20
"""Bytes up to which a file is sent in one request."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-")
"""RFC 9110, section 14.4."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def upload(
    session: Session, path: Path, *, name: str | None = None, on_bytes: OnBytes | None = None
) -> FileRef:
    """Bring a file's bytes to the service, unless they are there already.

    The file is read twice, to name it by its digest and to send it, and never held in memory. A
    cut connection costs another reading; of a large file, which goes in parts, only of one part.
    ``name`` is what the file is called; its own by default.

    Raises:
        InvalidInputError: the file cannot be read, has a name that a checkpoint's file cannot
            have, or changes meanwhile.
        ServiceError: the service refuses, stays busy, or cannot be reached.
    """
    size, digest = _identify(path)
    try:
        reference = FileRef(name=name or path.name, size=size, digest=str(digest))
    except ValidationError as error:
        raise InvalidInputError(
            f"{path}: no file of a checkpoint can have this name; use letters, digits, '.', '_' "
            "and '-'"
        ) from error
    address = f"/v1/blobs/{digest}"
    progress = Progress(on_bytes)
    if not session.exists(address):
        with _reading(path):
            if size <= WHOLE or not upload_in_parts(
                session, path, size=size, digest=digest, progress=progress
            ):
                session.put(address, lambda: blocks(path, 0, size, progress), size=size)
    progress.reach(size)
    return reference


def send(session: Session, path: Path, address: str) -> None:
    """Bring a file to an address of the service, as it is read.

    Raises:
        InvalidInputError: the file cannot be read, or changes meanwhile.
        ServiceError: the service refuses, stays busy, or cannot be reached.
    """
    with _reading(path):
        size = path.stat().st_size
        session.put(address, lambda: blocks(path, 0, size, Progress(None)), size=size)


def download(
    session: Session,
    href: str,
    target: Path,
    *,
    size: int,
    digest: Digest,
    on_bytes: OnBytes | None = None,
) -> None:
    """Fetch a file that becomes visible as ``target`` only whole, verified and durable.

    Bytes go to ``<target>.part`` first. What lies there, from a cut connection or a killed
    process, is continued where the service can (RFC 9110, section 14); several processes may ask
    for the same file, and the first fetches it. A right file at ``target`` is left as it is, a
    wrong one replaced.

    Raises:
        DigestMismatchError: other bytes came than were promised; they were removed.
        OutOfSpaceError: the disk cannot hold the file; what had come was removed.
        ServiceError: the service refuses, or no more bytes come; what had come stays.
    """
    progress = Progress(on_bytes)
    with PartialFile(target.with_name(target.name + PARTIAL), size, progress) as part:
        if _is_there(target, size, digest):
            part.remove()
        else:
            with _writing(target, size - part.size):
                _fill(session, href, part, digest)
                part.publish(target, digest)
        progress.reach(size)


def _fill(session: Session, href: str, part: PartialFile, digest: Digest) -> None:
    """Fetch what a part lacks, for as long as every few tries bring something new."""
    tried, furthest = 0, part.size
    while part.size < part.whole:
        try:
            _fetch(session, href, part, digest)
        except BrokenOffError as error:
            reason = f"the connection was cut: {error.__cause__}"
        else:
            reason = "the answer ended early"
        tried = 0 if part.size > furthest else tried + 1
        furthest = max(furthest, part.size)
        if part.size < part.whole and tried >= session.patience.attempts:
            raise BrokenOffError(
                f"{href}: {furthest:,} of {part.whole:,} bytes came, and nothing more in {tried} "
                f"tries ({reason}); ask again to continue from there"
            )
        if tried:
            session.pause(tried)


def _fetch(session: Session, href: str, part: PartialFile, digest: Digest) -> None:
    """Ask once for what a part lacks, and take what comes."""
    # The tag is the digest: a service that has other bytes by now sends all of them, and no mix.
    wanted = {"Range": f"bytes={part.size}-", "If-Range": f'"{digest.hex}"'} if part.size else {}
    try:
        with session.get(href, headers=wanted) as response:
            start = _first_byte(response)
            if start != part.size:
                part.restart()
            if start > 0 == part.size:
                return  # not what was asked for
            with WriteBehind(part.write) as behind:
                for chunk in response.iter_raw():
                    behind.take(chunk)
    except ServiceError as error:
        if error.status != 416:
            raise
        part.restart()  # the service has fewer bytes than lie here, so they are others


def _first_byte(response: Response) -> int:
    """Return where in the file an answer begins."""
    if response.status_code != 206:
        return 0
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else -1


def _identify(path: Path) -> tuple[int, Digest]:
    with _reading(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), Digest(digest.hexdigest())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error


def _is_there(target: Path, size: int, digest: Digest) -> bool:
    return (
        target.is_file() and target.stat().st_size == size and _identify(target) == (size, digest)
    )


@contextmanager
def _writing(target: Path, needed: int) -> Iterator[None]:
    """Say it in time where the disk has no room for so many more bytes of ``target``."""
    message = (
        f"the disk of {target.parent} has no room for {needed:,} more bytes of {target.name}; "
        "what had come was removed, free some space or choose another disk"
    )
    status = os.statvfs(target.parent)
    if status.f_bavail * status.f_frsize < needed:
        raise OutOfSpaceError(message)
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OutOfSpaceError(message) from error
