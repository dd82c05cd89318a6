"""Blobs in memory: for tests, and for what need not outlive its process."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    MissingError,
    TooLargeError,
    TruncatedFileError,
)
from ckptmerge.storage.memory_partials import MemoryPartials


class MemoryBlobStore:
    """Blobs in a dictionary."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self.partials = MemoryPartials(self._blobs.__setitem__)
        """Bytes that come in pieces."""

    def size(self, digest: Digest) -> int | None:
        """Return the blob's size, or None where there is no such blob."""
        content = self._blobs.get(digest)
        return None if content is None else len(content)

    def writer(self, *, size: int | None = None, expected: Digest | None = None) -> "MemoryWriter":
        """Begin a new blob."""
        return MemoryWriter(self._blobs, size=size, expected=expected)

    def open(self, digest: Digest) -> "MemoryReader":
        """Open a blob for reading.

        Raises:
            MissingError: there is no such blob.
        """
        content = self._blobs.get(digest)
        if content is None:
            raise MissingError(_missing(digest))
        return MemoryReader(content)

    def path(self, digest: Digest) -> None:
        """Say that nobody else can read it.

        Raises:
            MissingError: there is no such blob.
        """
        if digest not in self._blobs:
            raise MissingError(_missing(digest))

    def delete(self, digest: Digest) -> None:
        """Remove a blob; nothing happens where there is none."""
        self._blobs.pop(digest, None)

    def __iter__(self) -> Iterator[Digest]:
        """Name every blob."""
        yield from sorted(self._blobs)


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
