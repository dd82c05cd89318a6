"""Partial blobs in memory: for tests, and for what need not outlive its process."""

from collections.abc import Callable, Iterator
from types import TracebackType

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    MissingError,
    TooLargeError,
    TruncatedFileError,
)


class MemoryPartials:
    """Partial blobs in a dictionary.

    Args:
        publish: Makes bytes a blob.
    """

    def __init__(self, publish: Callable[[Digest, bytes], None]) -> None:
        self._publish = publish
        self._contents: dict[str, bytes] = {}

    def create(self, name: str, *, room: int) -> None:
        """Begin a partial blob without bytes; memory has all the room there is."""
        del room
        self._contents[name] = b""

    def open(self, name: str, *, offset: int, size: int, expected: Digest) -> "MemoryPartial":
        """Open a partial blob at its end.

        Raises:
            MissingError: it is not there, or not all that was promised.
        """
        content = self._contents.get(name)
        if content is None or len(content) < offset:
            raise MissingError(_lost(name))
        return MemoryPartial(self, name, bytearray(content[:offset]), size, expected)

    def discard(self, name: str) -> None:
        """Remove a partial blob; nothing happens where there is none."""
        self._contents.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        """Name every partial blob."""
        yield from sorted(self._contents)

    def replace(self, name: str, content: bytes) -> None:
        """Put what has come in the place of what was there.

        Raises:
            MissingError: it was removed meanwhile.
        """
        if name not in self._contents:
            raise MissingError(_lost(name))
        self._contents[name] = content

    def publish(self, name: str, digest: Digest, content: bytes) -> None:
        """Make a partial blob a blob.

        Raises:
            MissingError: it was removed meanwhile.
        """
        self.replace(name, content)
        self._publish(digest, content)
        self.discard(name)


class MemoryPartial:
    """A partial blob that is open at its end; over when it was kept, committed or has failed."""

    def __init__(
        self, store: MemoryPartials, name: str, content: bytearray, size: int, expected: Digest
    ) -> None:
        self._store = store
        self._name = name
        self._content = content
        self._size = size
        self._expected = expected
        self._over = False

    def __enter__(self) -> "MemoryPartial":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True

    @property
    def position(self) -> int:
        """Bytes that there are, these included."""
        return len(self._content)

    def write(self, view: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            TooLargeError: more came than were announced; none of these is kept.
            ValueError: it is over.
        """
        self._require_open()
        given = memoryview(view).cast("B")
        if self.position + len(given) > self._size:
            raise TooLargeError(f"more came than the {self._size:,} bytes that were announced")
        self._content += given

    def keep(self) -> int:
        """Keep what has come, and return how much that is.

        Raises:
            MissingError: it was removed meanwhile.
            ValueError: it is over.
        """
        self._require_open()
        self._over = True
        self._store.replace(self._name, bytes(self._content))
        return self.position

    def commit(self) -> Digest:
        """Make it a blob.

        Raises:
            DigestMismatchError: the bytes are not those that were announced; all are removed.
            TruncatedFileError: there are fewer than were announced.
            MissingError: it was removed meanwhile.
            ValueError: it is over.
        """
        self._require_open()
        if self.position < self._size:
            raise TruncatedFileError(
                f"{self.position:,} of {self._size:,} announced bytes came; append the others"
            )
        self._over = True
        digest = Digest.of_bytes(bytes(self._content))
        if digest != self._expected:
            self._store.discard(self._name)
            raise DigestMismatchError(
                f"the bytes are {digest}, announced was {self._expected}; they were damaged on "
                "the way, or changed while they were sent; upload them again"
            )
        self._store.publish(self._name, digest, bytes(self._content))
        return digest

    def _require_open(self) -> None:
        if self._over:
            raise ValueError("the partial blob is over: kept, committed, failed or left")


def _lost(name: str) -> str:
    return f"the bytes of upload {name} are not there any more; begin another upload"
