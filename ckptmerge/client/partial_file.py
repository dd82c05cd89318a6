"""The beginning of a file on disk: hashed as it grows, continued later, published when whole."""

import fcntl
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import DigestMismatchError, OutOfSpaceError

BLOCK = 1 << 20
"""Bytes in memory at a time."""

OnBytes = Callable[[int], None]
"""Told how many more bytes of a transfer are where they should be."""


class Progress:
    """Reports a transfer that may begin again from behind, without counting a byte twice."""

    def __init__(self, on_bytes: OnBytes | None) -> None:
        self._on_bytes = on_bytes
        self._reached = 0

    def reach(self, position: int) -> None:
        """Report what is new up to ``position``."""
        if position > self._reached and self._on_bytes is not None:
            self._on_bytes(position - self._reached)
        self._reached = max(self._reached, position)


class PartialFile:
    """The beginning of a file on disk and its hash; a context manager that holds it alone.

    Leaving it keeps what has been written, for another time.
    """

    def __init__(self, path: Path, whole: int, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self.whole = whole
        """Bytes the file will have."""
        self.size = 0
        """Bytes it has."""
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        self._file = _open_alone(self._path)
        if os.fstat(self._file.fileno()).st_size > self.whole:
            self.restart()
        while block := self._file.read(BLOCK):
            self._count(block)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OutOfSpaceError):
            self.remove()
        self._file.close()

    def restart(self) -> None:
        """Forget what came before."""
        self._file.seek(0)
        self._file.truncate()
        self.size = 0
        self._hash = hashlib.sha256()

    def write(self, block: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            DigestMismatchError: they are more than the file should have; it was removed.
        """
        if self.size + len(block) > self.whole:
            self.remove()
            raise DigestMismatchError(
                f"{self._path.name}: more than the {self.whole:,} bytes came that were promised; "
                "they were removed. Ask for its description again and download anew"
            )
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]
        self._count(block)

    def publish(self, target: Path, digest: Digest) -> None:
        """Check what came, make it durable, and give it its name.

        Raises:
            DigestMismatchError: it is not what was promised; it was removed.
        """
        if self._hash.hexdigest() != digest.hex:
            self.remove()
            raise DigestMismatchError(
                f"{target}: the bytes that came are sha256:{self._hash.hexdigest()} and not the "
                f"promised {digest}; they were removed, download again"
            )
        os.fsync(self._file.fileno())
        self._path.rename(target)
        descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Leave nothing."""
        self._path.unlink(missing_ok=True)

    def _count(self, block: bytes | memoryview) -> None:
        self._hash.update(block)
        self.size += len(block)
        self._progress.reach(self.size)


def _open_alone(path: Path) -> FileIO:
    """Open a file that nobody else works on, waiting for whoever does."""
    while True:
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        # Whoever had it may have given it its name meanwhile, or removed it: then again.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
