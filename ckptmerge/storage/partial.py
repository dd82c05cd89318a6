"""Partial blobs: bytes that come in pieces, kept between the pieces until they are a blob.

What ``PartialBlob.keep`` has returned survives the loss of power; the record that promises it is
written after that. What lies beyond the promise is cut off when the next piece comes. Whoever
opens a partial blob sees to it that nobody else has it open.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from ckptmerge.domain.digest import Digest


@runtime_checkable
class PartialBlob(Protocol):
    """The end of a partial blob; a context manager. Left without ``keep``, nothing is promised."""

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

    @property
    def position(self) -> int:
        """Bytes that there are, these included."""
        ...

    def write(self, view: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; the buffer may be used again afterwards.

        Raises:
            TooLargeError: more came than were announced; none of these is kept.
            OutOfSpaceError: the disk is full; none since the blob was opened are kept.
        """
        ...

    def keep(self) -> int:
        """Make durable what has come, and return how much that is.

        Raises:
            OutOfSpaceError: the disk is full; none since the blob was opened are kept.
        """
        ...

    def commit(self) -> Digest:
        """Make it a blob, durable and visible; nothing partial is left of it.

        Raises:
            DigestMismatchError: the bytes are not those that were announced; all are removed.
            TruncatedFileError: there are fewer than were announced.
            OutOfSpaceError: the disk is full; none since the blob was opened are kept.
        """
        ...


@runtime_checkable
class PartialStore(Protocol):
    """Partial blobs by name; safe from several threads."""

    def create(self, name: str, *, room: int) -> None:
        """Begin a partial blob without bytes.

        Args:
            name: Of it; nobody has used it before.
            room: Bytes that the disk must hold beside its reserve.

        Raises:
            OutOfSpaceError: it cannot.
        """
        ...

    def open(self, name: str, *, offset: int, size: int, expected: Digest) -> PartialBlob:
        """Open a partial blob at its end.

        Args:
            name: Of it.
            offset: How many bytes were promised; what lies beyond is cut off.
            size: Bytes of the whole.
            expected: Their digest.

        Raises:
            MissingError: it is not there, or not all that was promised.
            OutOfSpaceError: the disk has nothing free beside its reserve.
        """
        ...

    def discard(self, name: str) -> None:
        """Remove a partial blob; nothing happens where there is none."""
        ...

    def __iter__(self) -> Iterator[str]:
        """Name every partial blob."""
        ...
