"""Partial blobs in a folder, on the disk where they become blobs.

Bytes are written where the promised ones end and synced before they are promised themselves. The
hash goes along in memory; after a restart, or where an append failed, it is made anew from the
file. A sync that fails is not repeated: the bytes since the last promise have to come again.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    MissingError,
    TooLargeError,
    TruncatedFileError,
)
from ckptmerge.storage.durable import disk_error, make_folder, sync_folder

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

BLOCK = 2**20
"""Bytes read at once where the hash is made anew."""


class FolderPartials:
    """Partial blobs in a folder; safe from several threads, each with a blob of its own.

    Args:
        folder: Where they lie; made when the first one comes.
        publish: Gives a synced file its name as a blob, durably.
        require_room: Checks that so many more bytes fit on the disk beside its reserve.
    """

    def __init__(
        self,
        folder: Path,
        *,
        publish: Callable[[Path, Digest], None],
        require_room: Callable[[int], None],
    ) -> None:
        self._folder = folder
        self._publish = publish
        self._require_room = require_room
        self._hashes: dict[str, tuple[int, Hash]] = {}

    def create(self, name: str, *, room: int) -> None:
        """Begin a partial blob without bytes.

        Raises:
            OutOfSpaceError: the disk cannot hold ``room`` bytes beside its reserve, or is full.
        """
        self._require_room(room)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            make_folder(self._folder)
            os.close(os.open(self._folder / name, flags, 0o600))
            sync_folder(self._folder)
        except OSError as error:
            raise _said(error, 0) from error

    def open(self, name: str, *, offset: int, size: int, expected: Digest) -> "FolderPartial":
        """Open a partial blob at its end.

        Raises:
            MissingError: it is not there, or not all that was promised.
            OutOfSpaceError: the disk has nothing free beside its reserve.
        """
        self._require_room(0)
        path = self._folder / name
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise MissingError(_lost(name)) from error
        try:
            taken = self._cut(descriptor, name, offset)
        except OSError as error:
            os.close(descriptor)
            raise _said(error, offset) from error
        except BaseException:
            os.close(descriptor)
            raise
        return FolderPartial(
            self, path, descriptor, taken=taken, offset=offset, size=size, expected=expected
        )

    def discard(self, name: str) -> None:
        """Remove a partial blob; nothing happens where there is none."""
        self._hashes.pop(name, None)
        (self._folder / name).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        """Name every partial blob."""
        if self._folder.is_dir():
            yield from sorted(path.name for path in self._folder.iterdir())

    def _cut(self, descriptor: int, name: str, offset: int) -> "Hash":
        """Cut off what lies beyond the promise, and return the hash of the rest."""
        status = os.fstat(descriptor)
        # With a second name it has become a blob already, which nobody may change.
        if status.st_nlink != 1 or status.st_size < offset:
            raise MissingError(_lost(name))
        os.ftruncate(descriptor, offset)
        position, taken = self._hashes.pop(name, (-1, hashlib.sha256()))
        return taken if position == offset else _hash(descriptor, offset)

    def remember(self, name: str, position: int, taken: "Hash") -> None:
        """Keep the hash of the bytes up to ``position`` for the next append."""
        self._hashes[name] = position, taken

    def publish(self, path: Path, digest: Digest) -> None:
        """Make a synced partial blob a blob."""
        self._publish(path, digest)
        self.discard(path.name)


class FolderPartial:
    """A partial blob that is open at its end; over when it was kept, committed or has failed."""

    def __init__(
        self,
        store: FolderPartials,
        path: Path,
        descriptor: int,
        *,
        taken: "Hash",
        offset: int,
        size: int,
        expected: Digest,
    ) -> None:
        self._store = store
        self._path = path
        self._descriptor: int | None = descriptor
        self._hash = taken
        self._offset = offset
        self._size = size
        self._expected = expected
        self._failure: Exception | None = None
        self.position = offset

    def __enter__(self) -> "FolderPartial":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def write(self, view: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            TooLargeError: more came than were announced; none of these is kept.
            OutOfSpaceError: the disk is full; none since the blob was opened are kept.
            ValueError: it is over.
        """
        descriptor = self._open()
        rest = memoryview(view).cast("B")
        if self.position + len(rest) > self._size:
            raise TooLargeError(f"more came than the {self._size:,} bytes that were announced")
        self._hash.update(rest)
        try:
            while rest:
                written = os.pwrite(descriptor, rest, self.position)
                self.position += written
                rest = rest[written:]
        except OSError as error:
            raise self._failed(error) from error

    def keep(self) -> int:
        """Make durable what has come, and return how much that is.

        Raises:
            OutOfSpaceError: the disk is full; none since the blob was opened are kept.
            ValueError: it is over.
        """
        self._sync()
        self._store.remember(self._path.name, self.position, self._hash)
        self._end()
        return self.position

    def commit(self) -> Digest:
        """Make it a blob, durable and visible.

        Raises:
            DigestMismatchError: the bytes are not those that were announced; all are removed.
            TruncatedFileError: there are fewer than were announced.
            MissingError: it was removed meanwhile.
            OutOfSpaceError: the disk is full; none since the blob was opened are kept.
            ValueError: it is over.
        """
        self._open()
        if self.position < self._size:
            raise TruncatedFileError(
                f"{self.position:,} of {self._size:,} announced bytes came; append the others"
            )
        digest = Digest(self._hash.hexdigest())
        if digest != self._expected:
            self._end()
            self._store.discard(self._path.name)
            raise DigestMismatchError(
                f"the bytes are {digest}, announced was {self._expected}; they were damaged on "
                "the way, or changed while they were sent; upload them again"
            )
        self._sync()
        try:
            self._store.publish(self._path, digest)
        except FileNotFoundError as error:
            raise MissingError(_lost(self._path.name)) from error
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self._end()
        return digest

    def _sync(self) -> None:
        try:
            os.fsync(self._open())
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> Exception:
        """End with what to say of an error, now and to whoever comes after it."""
        self._end()
        self._failure = _said(error, self._offset)
        return self._failure

    def _open(self) -> int:
        if self._descriptor is None:
            raise self._failure or ValueError(
                "the partial blob is over: kept, committed, failed or left"
            )
        return self._descriptor

    def _end(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def _said(error: OSError, kept: int) -> Exception:
    """Return what to say of an error while bytes beyond the first ``kept`` were written."""
    return disk_error(
        error,
        full=f"the disk is full; the first {kept:,} bytes of the upload are kept, free some space "
        "and go on from there",
        kept=f"the first {kept:,} bytes of the upload are kept",
    )


def _hash(descriptor: int, size: int) -> "Hash":
    """Hash the first ``size`` bytes of a file."""
    taken, done = hashlib.sha256(), 0
    while done < size:
        block = os.pread(descriptor, min(BLOCK, size - done), done)
        taken.update(block)
        done += len(block)
    return taken


def _lost(name: str) -> str:
    return f"the bytes of upload {name} are not there any more; begin another upload"
