"""Blobs in a folder: ``sha256/ab/<hex>``, written aside and given their name when they are safe.

The order is what makes a blob durable: write, sync the file, link it to its name, sync the folder
that holds the name. Left out, the first sync loses bytes behind a good name when power is lost, the
second the name itself (measured on ext4). A sync that fails is never repeated: the kernel may have
dropped the pages, and the next one would succeed with the bytes lost. So a writer ends with its
first failure, and with its commit: the blob's name leads to the very file that was written.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock, RLock
from types import TracebackType
from uuid import uuid4
from weakref import WeakSet

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    MissingError,
    OutOfSpaceError,
    TooLargeError,
    TruncatedFileError,
)
from ckptmerge.formats.claim import ClaimedFolder
from ckptmerge.storage.durable import disk_error, make_folder, sync_folder
from ckptmerge.storage.folder_partials import FolderPartials
from ckptmerge.storage.in_place import InPlaceNotes, read_in_place

RESERVE = 2**30
"""Bytes that are left free: the database beside the blobs must be able to grow."""

IN_PLACE = "in-place"
"""Folder of the notes of files that lie elsewhere."""

_HEX = re.compile(r"[0-9a-f]{64}")


class FolderBlobStore:
    """Blobs in a folder of one disk; safe from several threads and processes.

    Args:
        root: The folder, made where it is missing. What dead processes were writing is removed.
        reserve: Bytes of the disk that are left free.
    """

    def __init__(self, root: Path, *, reserve: int = RESERVE) -> None:
        self._root = root.absolute()
        self._reserve = reserve
        self._blobs = self._root / "sha256"
        make_folder(self._blobs)
        self._durable = self._sync_folders()
        self._naming = Lock()
        self._promising = RLock()
        self._writers: WeakSet[FolderWriter] = WeakSet()
        self._incoming = ClaimedFolder(self._root, ".incoming-")
        self.partials = FolderPartials(
            self._root / "partial", publish=self._publish, require_room=self._require_room
        )
        """Bytes that come in pieces; they outlive this process."""
        self._notes = InPlaceNotes(self._root / IN_PLACE)

    def size(self, digest: Digest) -> int | None:
        """Return the blob's size, or None where there is no such blob."""
        try:
            return self._place(digest).stat().st_size
        except FileNotFoundError:
            noted = self._notes.find(digest)
            return noted.size if noted is not None and noted.is_unchanged() else None

    def is_own(self, digest: Digest) -> bool:
        """Say whether the blob's bytes are in this store's own keeping."""
        return self._place(digest).is_file()

    def take_in_place(self, path: Path) -> tuple[Digest, int]:
        """Let a file be a blob where it lies; return its digest and size.

        Raises:
            CheckpointFormatError: it is not a regular file, or was written to meanwhile.
        """
        digest, noted = read_in_place(path.absolute())
        self._notes.add(digest, noted)
        return digest, noted.size

    def writer(
        self, *, size: int | None = None, expected: Digest | None = None, beside: int = 0
    ) -> "FolderWriter":
        """Begin a new blob.

        Raises:
            OutOfSpaceError: the disk cannot hold ``size`` bytes beside what others were promised
                and its reserve, or is full.
        """
        with self._promising:
            self._require_room(size or 0, beside)
            writer = FolderWriter(
                self._incoming.path / uuid4().hex, self._publish, size=size, expected=expected
            )
            self._writers.add(writer)
            return writer

    def open(self, digest: Digest) -> "FolderReader":
        """Open a blob for reading.

        Raises:
            MissingError: there is no such blob.
        """
        try:
            return FolderReader(os.open(self._place(digest), os.O_RDONLY | os.O_NOFOLLOW))
        except FileNotFoundError as error:
            noted = self._notes.find(digest)
            if noted is None:
                raise MissingError(_missing(digest)) from error
            return FolderReader(noted.open())

    def path(self, digest: Digest) -> Path:
        """Return where the blob lies.

        Raises:
            MissingError: there is no such blob.
        """
        place = self._place(digest)
        if place.is_file():
            return place
        noted = self._notes.find(digest)
        if noted is None:
            raise MissingError(_missing(digest))
        os.close(noted.open())
        return Path(noted.path)

    def delete(self, digest: Digest) -> None:
        """Remove a blob; nothing happens where there is none, and to a file that lies elsewhere."""
        self._place(digest).unlink(missing_ok=True)
        self._notes.remove(digest)

    def __iter__(self) -> Iterator[Digest]:
        """Name every blob."""
        for folder in sorted(self._blobs.iterdir()):
            for file in sorted(folder.iterdir()):
                if _HEX.fullmatch(file.name):
                    yield Digest(file.name)
        for digest in self._notes:
            if not self.is_own(digest) and self.size(digest) is not None:
                yield digest

    def close(self) -> None:
        """Remove what is still being written."""
        self._incoming.remove()

    def _require_room(self, size: int, beside: int = 0) -> None:
        with self._promising:
            promised = beside + sum(writer.missing for writer in self._writers)
        free = shutil.disk_usage(self._root).free
        if size + promised + self._reserve > free:
            others = f", the {promised:,} that others were promised" if promised else ""
            raise OutOfSpaceError(
                f"{size:,} bytes{others} and the reserve of {self._reserve:,} do not fit into "
                f"{free:,} free bytes of {self._root}; remove checkpoints, or lower the reserve"
            )

    def _place(self, digest: Digest) -> Path:
        return self._blobs / digest.hex[:2] / digest.hex

    def _publish(self, partial: Path, digest: Digest) -> None:
        """Give a synced file its name, durably."""
        place = self._place(digest)
        if place.parent not in self._durable:
            place.parent.mkdir(exist_ok=True)
            sync_folder(self._blobs)
            # Only now: until it is synced, another writer must not rely on the folder being there.
            self._durable.add(place.parent)
        # One at a time: a name that is taken back must not be one that another upload relies on.
        with self._naming, ExitStack() as undo:
            with suppress(FileExistsError):  # another upload of the same bytes was faster
                place.hardlink_to(partial)
                undo.callback(_try_to_remove, place)
            sync_folder(place.parent)
            undo.pop_all()

    def _sync_folders(self) -> set[Path]:
        """Make durable the names that a killed process had given and not synced yet."""
        folders = {folder for folder in self._blobs.iterdir() if folder.is_dir()}
        for folder in (*folders, self._blobs):
            sync_folder(folder)
        return folders


class FolderWriter:
    """A blob on its way in; over with its commit or its first failure."""

    def __init__(
        self,
        partial: Path,
        publish: Callable[[Path, Digest], None],
        *,
        size: int | None,
        expected: Digest | None,
    ) -> None:
        self._partial = partial
        self._publish = publish
        self._size = size
        self._expected = expected
        self._hash = hashlib.sha256()
        self.received = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            self._descriptor: int | None = os.open(partial, flags, 0o600)
        except OSError as error:
            raise self._said(error) from error

    def __enter__(self) -> "FolderWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def missing(self) -> int:
        """Bytes that were announced, and need room on the disk when they come."""
        over = self._descriptor is None
        return 0 if over or self._size is None else self._size - self.received

    def write(self, view: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            TooLargeError: more came than were announced.
            OutOfSpaceError: the disk is full.
            ValueError: the writer is over.
        """
        descriptor = self._open()
        rest = memoryview(view).cast("B")
        if self._size is not None and self.received + len(rest) > self._size:
            self._end()
            raise TooLargeError(f"more came than the {self._size:,} bytes that were announced")
        self._hash.update(rest)
        self.received += len(rest)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError as error:
            self._end()
            raise self._said(error) from error

    def commit(self) -> Digest:
        """Make the blob durable and visible; return its digest.

        Raises:
            DigestMismatchError: the bytes are not those that were announced.
            TruncatedFileError: fewer came than were announced.
            OutOfSpaceError: the disk is full.
            ValueError: the writer is over.
        """
        descriptor = self._open()
        try:
            digest = self._checked()
            os.fsync(descriptor)
            self._publish(self._partial, digest)
        except OSError as error:
            raise self._said(error) from error
        finally:
            self._end()
        return digest

    def _checked(self) -> Digest:
        if self._size is not None and self.received < self._size:
            raise TruncatedFileError(
                f"{self.received:,} of {self._size:,} announced bytes came; send them again"
            )
        digest = Digest(self._hash.hexdigest())
        if self._expected not in {None, digest}:
            raise DigestMismatchError(
                f"the bytes are {digest}, announced was {self._expected}; they were damaged on "
                "the way, or named wrongly"
            )
        return digest

    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError("the writer is over: committed, failed or left")
        return self._descriptor

    def _end(self) -> None:
        """Close and remove the partial file; a name it was given meanwhile stays."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
            self._partial.unlink(missing_ok=True)

    def _said(self, error: OSError) -> Exception:
        return disk_error(
            error,
            full=f"the disk is full after {self.received:,} bytes, none of which were kept; "
            "free some space and send them again",
            kept=f"none of the {self.received:,} bytes that came were kept",
        )


class FolderReader:
    """An open blob, by the descriptor of its file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def __enter__(self) -> "FolderReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer only at the end."""
        blocks: list[bytes] = []
        # The kernel gives at most 2 GiB at once.
        while length and (block := os.pread(self._descriptor, length, offset)):
            blocks.append(block)
            offset += len(block)
            length -= len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _try_to_remove(place: Path) -> None:
    """Take back a name that may not last; on a disk that fails this can fail as well."""
    with suppress(OSError):
        place.unlink()


def _missing(digest: Digest) -> str:
    return f"there is no blob {digest}; it was never uploaded, or removed"
