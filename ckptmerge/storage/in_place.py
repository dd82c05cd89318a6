"""Files that stay where their writer left them: noted, and never taken for what they have become.

A note holds a file's place, size, inode and time of modification, and the digest of what was read
then. Whoever writes to the file or replaces it changes one of them, and from then on the note leads
nowhere; who sets the time back is found out by the worker, which reads what it merges. (The time of
the inode's change would tell too, but also changes when somebody links to the file.) Nobody here
ever writes to such a file, or removes it.
"""

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import CheckpointFormatError, MissingError
from ckptmerge.storage.durable import make_folder, sync_folder

_READ_AT_ONCE = 8 * 2**20

_NOTE = re.compile(r"([0-9a-f]{64})\.json")


@dataclass(frozen=True, slots=True)
class InPlaceFile:
    """A file elsewhere, as it was when it was read."""

    path: str
    size: int
    inode: int
    modified: int
    """Nanoseconds since 1970."""

    def open(self) -> int:
        """Open the file, and return its descriptor.

        Raises:
            MissingError: it is not there, or not what it was.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise MissingError(_said(self.path, error.strerror or "it cannot be read")) from error
        if _seen(self.path, os.fstat(descriptor)) != self:
            os.close(descriptor)
            raise MissingError(_said(self.path, "it has changed since"))
        return descriptor

    def is_unchanged(self) -> bool:
        """Say whether the file is still what it was, as far as can be seen without reading it."""
        try:
            os.close(self.open())
        except MissingError:
            return False
        return True


def read_in_place(path: Path) -> tuple[Digest, InPlaceFile]:
    """Read a file once, and return the digest of its bytes and what will show that it changed.

    Raises:
        CheckpointFormatError: it is not a regular file, or was written to meanwhile.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise CheckpointFormatError(f"{path} is not a regular file, but a link") from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise CheckpointFormatError(f"{path} is not a regular file")
        found = hashlib.sha256()
        buffer = memoryview(bytearray(_READ_AT_ONCE))
        while count := file.readinto(buffer):
            found.update(buffer[:count])
        noted = _seen(str(path), os.fstat(descriptor))
    if noted != _seen(str(path), before):
        raise CheckpointFormatError(
            f"{path} was written to while it was read; wait until it is whole"
        )
    return Digest(found.hexdigest()), noted


class InPlaceNotes:
    """The notes of one blob folder, a small file each; safe from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, digest: Digest, file: InPlaceFile) -> None:
        """Note durably where a digest's bytes lie; an earlier note of it is forgotten."""
        make_folder(self._folder)
        partial = self._folder / f".{uuid4().hex}"
        try:
            with partial.open("xb") as written:
                written.write(json.dumps(asdict(file)).encode())
                written.flush()
                os.fsync(written.fileno())
            partial.rename(self.note(digest))
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(self._folder)

    def find(self, digest: Digest) -> InPlaceFile | None:
        """Return what was noted of a digest, whether or not it is still true."""
        with suppress(FileNotFoundError):
            return InPlaceFile(**json.loads(self.note(digest).read_bytes()))
        return None

    def remove(self, digest: Digest) -> None:
        """Forget a digest; its file stays."""
        self.note(digest).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Digest]:
        """Name every digest that there is a note of."""
        notes = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        for note in notes:
            if match := _NOTE.fullmatch(note.name):
                yield Digest(match[1])

    def note(self, digest: Digest) -> Path:
        """Return where the note of a digest is, or would be."""
        return self._folder / f"{digest.hex}.json"


def _seen(path: str, status: os.stat_result) -> InPlaceFile:
    return InPlaceFile(
        path=path,
        size=status.st_size,
        inode=status.st_ino,
        modified=status.st_mtime_ns,
    )


def _said(path: str, what: str) -> str:
    return (
        f"{path} was registered in place, and {what}; put the file back as it was and register the "
        "checkpoint again, or register a copy"
    )
