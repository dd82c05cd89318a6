"""Blobs in memory: for tests, and for what need not outlive its process."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    MissingError,
    TooLargeError,
    TruncatedFileError,
)
from ckptmerge.storage.blobs import BlobReader
from ckptmerge.storage.folder import FolderReader
from ckptmerge.storage.in_place import InPlaceFile, read_in_place
from ckptmerge.storage.memory_partials import MemoryPartials


class MemoryBlobStore:
    """Blobs in a dictionary."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._noted: dict[Digest, InPlaceFile] = {}
        self.partials = MemoryPartials(self._blobs.__setitem__)
        """Bytes that come in pieces."""

    def size(self, digest: Digest) -> int | None:
        """Return the blob's size, or None where there is no such blob."""
        content = self._blobs.get(digest)
        if content is not None:
            return len(content)
        noted = self._noted.get(digest)
        return noted.size if noted is not None and noted.is_unchanged() else None

    def is_own(self, digest: Digest) -> bool:
        """Say whether the blob's bytes are in this store's own keeping."""
        return digest in self._blobs

    def take_in_place(self, path: Path) -> tuple[Digest, int]:
        """Let a file be a blob where it lies; return its digest and size.

        Raises:
            CheckpointFormatError: it is not a regular file, or was written to meanwhile.
        """
        digest, noted = read_in_place(path.absolute())
        self._noted[digest] = noted
        return digest, noted.size

    def writer(
        self, *, size: int | None = None, expected: Digest | None = None, beside: int = 0
    ) -> "MemoryWriter":
        """Begin a new blob; there is room for any."""
        del beside
        return MemoryWriter(self._blobs, size=size, expected=expected)

    def open(self, digest: Digest) -> BlobReader:
        """Open a blob for reading.

        Raises:
            MissingError: there is no such blob.
        """
        content = self._blobs.get(digest)
        if content is None:
            return FolderReader(self._in_place(digest).open())
        return MemoryReader(content)

    def path(self, digest: Digest) -> Path | None:
        """Return where a file that was taken in place lies; nobody else can read the others.

        Raises:
            MissingError: there is no such blob.
        """
        if digest in self._blobs:
            return None
        noted = self._in_place(digest)
        os.close(noted.open())
        return Path(noted.path)

    def delete(self, digest: Digest) -> None:
        """Remove a blob; nothing happens where there is none, and to a file that lies elsewhere."""
        self._blobs.pop(digest, None)
        self._noted.pop(digest, None)

    def __iter__(self) -> Iterator[Digest]:
        """Name every blob."""
        intact = {digest for digest in self._noted if self.size(digest) is not None}
        yield from sorted(intact | self._blobs.keys())

    def _in_place(self, digest: Digest) -> InPlaceFile:
        noted = self._noted.get(digest)
        if noted is None:
            raise MissingError(_missing(digest))
        return noted


class MemoryWriter:
    """A blob on its way in; over with its commit or its first failure."""

    def __init__(
        self, blobs: dict[Digest, bytes], *, size: int | None, expected: Digest | None
    ) -> None:
        self._blobs = blobs
        self._size = size
        self._expected = expected
        self._content = bytearray()
        self._over = False
        self.received = 0

    def __enter__(self) -> "MemoryWriter":
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
            TooLargeError: more came than were announced.
            ValueError: the writer is over.
        """
        self._require_open()
        given = memoryview(view).cast("B")
        if self._size is not None and self.received + len(given) > self._size:
            self._end()
            raise TooLargeError(f"more came than the {self._size:,} bytes that were announced")
        self._content += given
        self.received += len(given)

    def commit(self) -> Digest:
        """Make the blob visible; return its digest.

        Raises:
            DigestMismatchError: the bytes are not those that were announced.
            TruncatedFileError: fewer came than were announced.
            ValueError: the writer is over.
        """
        self._require_open()
        try:
            content = bytes(self._content)
            digest = self._checked(content)
        finally:
            self._end()
        self._blobs[digest] = content
        return digest

    def _checked(self, content: bytes) -> Digest:
        if self._size is not None and self.received < self._size:
            raise TruncatedFileError(
                f"{self.received:,} of {self._size:,} announced bytes came; send them again"
            )
        digest = Digest.of_bytes(content)
        if self._expected not in {None, digest}:
            raise DigestMismatchError(
                f"the bytes are {digest}, announced was {self._expected}; they were damaged on "
                "the way, or named wrongly"
            )
        return digest

    def _require_open(self) -> None:
        if self._over:
            raise ValueError("the writer is over: committed, failed or left")

    def _end(self) -> None:
        self._over = True
        self._content = bytearray()


@dataclass(frozen=True)
class MemoryReader:
    """An open blob."""

    content: bytes

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return len(self.content)

    def __enter__(self) -> "MemoryReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing: nothing was opened."""

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer only at the end."""
        return self.content[offset : offset + length]


def _missing(digest: Digest) -> str:
    return f"there is no blob {digest}; it was never uploaded, or removed"
