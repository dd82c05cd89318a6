"""Blobs: immutable bytes under their SHA-256, in a folder or in memory.

A blob is there whole or not at all. What ``BlobWriter.commit`` has returned survives the loss of
power; the row that names it is written after that, so no row ever names bytes that are not there.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.partial import PartialStore


@runtime_checkable
class BlobWriter(Protocol):
    """Bytes on their way in; a context manager that leaves the whole blob or nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove whatever was not committed."""
        ...

    @property
    def received(self) -> int:
        """Bytes taken so far."""
        ...

    def write(self, view: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; the buffer may be used again afterwards.

        Raises:
            TooLargeError: more bytes came than were announced; nothing is kept.
            OutOfSpaceError: the disk is full.
        """
        ...

    def commit(self) -> Digest:
        """Make the blob durable and visible; return its digest.

        Raises:
            DigestMismatchError: the bytes are not those that were announced.
            TruncatedFileError: fewer bytes came than were announced.
            OutOfSpaceError: the disk is full.
        """
        ...


@runtime_checkable
class BlobReader(Protocol):
    """An open blob; a context manager. Reading goes on unharmed if the blob is deleted."""

    @property
    def size(self) -> int:
        """How many bytes the blob has."""
        ...

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer only at the end."""
        ...


@runtime_checkable
class BlobStore(Protocol):
    """Immutable bytes by digest; safe from several threads."""

    @property
    def partials(self) -> PartialStore:
        """Bytes that come in pieces, until they are a blob."""
        ...

    def size(self, digest: Digest) -> int | None:
        """Return the blob's size in bytes, or None where there is no such blob."""
        ...

    def is_own(self, digest: Digest) -> bool:
        """Say whether the blob's bytes are in this store's own keeping.

        Those of a file that was taken in place are not: whoever wants them kept must send them.
        """
        ...

    def take_in_place(self, path: Path) -> tuple[Digest, int]:
        """Let a file be a blob where it lies; return its digest and its size in bytes.

        The blob is there for as long as the file is what it was; deleting it leaves the file.

        Raises:
            CheckpointFormatError: it is not a regular file, or was written to meanwhile.
        """
        ...

    def writer(
        self, *, size: int | None = None, expected: Digest | None = None, beside: int = 0
    ) -> BlobWriter:
        """Begin a new blob.

        Args:
            size: How many bytes are going to come, where known; room for them is kept.
            expected: Their digest, where known.
            beside: How many bytes others have been promised room for.

        Raises:
            OutOfSpaceError: the disk cannot hold ``size`` bytes beside all that and its reserve.
        """
        ...

    def open(self, digest: Digest) -> BlobReader:
        """Open a blob for reading.

        Raises:
            MissingError: there is no such blob.
        """
        ...

    def path(self, digest: Digest) -> Path | None:
        """Return where a process of this machine may read the blob; None if it may not.

        Raises:
            MissingError: there is no such blob.
        """
        ...

    def delete(self, digest: Digest) -> None:
        """Remove a blob; nothing happens where there is none."""
        ...

    def __iter__(self) -> Iterator[Digest]:
        """Name every blob."""
        ...


def put(store: BlobStore, content: bytes) -> Digest:
    """Store bytes that are in memory, and return their digest.

    Raises:
        OutOfSpaceError: the disk is full.
    """
    digest = Digest.of_bytes(content)
    if store.size(digest) is None:
        with store.writer(size=len(content), expected=digest) as writer:
            writer.write(content)
            writer.commit()
    return digest


def read(store: BlobStore, digest: Digest) -> bytes:
    """Return a small blob whole.

    Raises:
        MissingError: there is no such blob.
    """
    with store.open(digest) as reader:
        return reader.read(0, reader.size)
