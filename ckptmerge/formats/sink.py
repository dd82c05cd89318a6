"""A model folder written so that it is either complete under its name or not there at all.

Bytes go to a hidden sibling, ``.{name}.partial-…``, whose weight files are called
``*.incomplete`` until the last byte of the last one is on the disk. Then: rename the files, sync
the folder, rename the folder, sync its parent. Without the syncs a power cut after the renames
leaves files of zero bytes under good names (measured on ext4). The hidden folder is locked while
its writer lives; one that can be locked belongs to a dead writer, and the next run removes it.
"""

import errno
import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from ckptmerge.domain.checkpoint import FileEntry, Manifest, TensorEntry, TensorSpec
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError, OutOfSpaceError, OutputExistsError
from ckptmerge.formats.claim import ClaimedFolder
from ckptmerge.formats.manifest import INDEX
from ckptmerge.formats.shards import ShardWriter, index_of, plan_shards

INCOMPLETE = ".incomplete"
"""Ending of a weight file that is still being written."""


class FolderSink:
    """Writes a model folder; a context manager that leaves the whole model or nothing.

    Tensors come block by block in ``order``. ``publish`` makes the folder visible; leaving the
    context without it, for whatever reason, removes everything that was written.

    Raises:
        OutputExistsError: something stands at ``out`` already, or appears there meanwhile.
        OutOfSpaceError: the disk cannot hold the model; what had been written was removed.
    """

    def __init__(
        self,
        out: Path,
        specs: Sequence[TensorSpec],
        *,
        metadata: Mapping[str, str],
        shard_size: int,
    ) -> None:
        self._out = out.absolute()
        if self._out.name in {"", ".."}:
            raise InvalidInputError(f"{out} cannot be an output folder; name a new one")
        shards = plan_shards(specs, shard_size)
        self.order: Sequence[TensorSpec] = tuple(s for shard in shards for s in shard.specs)
        self._shards = deque(shards)
        self._metadata = metadata
        self._bytes = sum(spec.bytes for spec in specs)
        self._files: list[FileEntry] = []
        self._tensors: list[TensorEntry] = []
        self._file: ShardWriter | None = None
        self._cleanup = ExitStack()

    def __enter__(self) -> "FolderSink":
        try:
            self._begin()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _begin(self) -> None:
        self._out.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(self._out):
            raise OutputExistsError(_exists(self._out))
        if _free(self._out.parent) < self._bytes:
            raise OutOfSpaceError(_no_space(self._out, self._bytes))
        claimed = ClaimedFolder(self._out.parent, f".{self._out.name}.partial-")
        self._cleanup.callback(claimed.remove)
        self._partial = claimed.path
        self._file = self._next_file()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._cleanup.close()
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise OutOfSpaceError(_no_space(self._out, self._bytes)) from error

    def lend(self, size: int) -> memoryview:
        """Return a writable buffer of ``size`` bytes; waits until one has reached the disk's cache.

        Raises:
            ValueError: every tensor has been written.
        """
        return self._current().lend(size)

    def write(self, name: str, view: memoryview) -> None:
        """Take the next bytes, which belong to tensor ``name``; every tensor has at least one turn.

        Raises:
            ValueError: it is not this tensor's turn, or the bytes go past its end.
            NonFiniteTensorError: a file is complete, and a tensor in it holds NaN or infinity.
        """
        file = self._current()
        file.write(name, view)
        if file.full:
            entry, tensors = file.finish()
            self._files.append(entry)
            self._tensors += tensors
            self._file = self._next_file()

    def publish(
        self, side_files: Mapping[str, bytes], extra_files: Mapping[str, bytes]
    ) -> Manifest:
        """Sync everything, give the folder its name, and return its manifest.

        The manifest identifies the files; their tensors are not digested one by one.

        Args:
            side_files: What belongs to the model: configuration, tokenizer.
            extra_files: What only lies beside it, such as ``recipe.json``; not in the manifest,
                so that the model's digest does not depend on it.

        Raises:
            ValueError: tensors are missing, or a name is not a plain one of its own.
            OutputExistsError: something appeared under the folder's name meanwhile.
        """
        if self._file is not None:
            raise ValueError(f"{self._file.turn!r} and what follows it have not been written")
        weights = [file.name for file in self._files]
        if len(weights) > 1:
            side_files = {**side_files, INDEX: index_of(self._tensors)}
        names = [*weights, *side_files, *extra_files]
        if len(set(names)) < len(names):
            raise ValueError(f"two files of one model have the same name: {sorted(names)}")
        for name, content in {**side_files, **extra_files}.items():
            _write_file(self._partial, name, content)
        for name in weights:
            (self._partial / (name + INCOMPLETE)).rename(self._partial / name)
        _sync(self._partial)
        _rename_to_absent(self._partial, self._out)
        _sync(self._out.parent)
        side = [FileEntry(n, len(c), Digest.of_bytes(c)) for n, c in side_files.items()]
        return Manifest(
            tuple(sorted([*self._files, *side])),
            tuple(sorted(self._tensors, key=lambda entry: entry.spec)),
        )

    def _current(self) -> ShardWriter:
        if self._file is None:
            raise ValueError("every tensor has been written already")
        return self._file

    def _next_file(self) -> ShardWriter | None:
        if not self._shards:
            return None
        shard = self._shards.popleft()
        return ShardWriter(self._partial / (shard.name + INCOMPLETE), shard, self._metadata)


def _write_file(folder: Path, name: str, content: bytes) -> None:
    if "/" in name or name in {"", ".", ".."}:
        raise ValueError(f"{name!r} is not a plain file name")
    with (folder / name).open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename_to_absent(partial: Path, out: Path) -> None:
    # The check is for an empty folder, which rename would replace; it refuses everything else
    # itself, so even a folder that appears between the two lines is lost only if it is empty.
    if os.path.lexists(out):
        raise OutputExistsError(_exists(out))
    try:
        partial.rename(out)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputExistsError(_exists(out)) from error
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise OutputExistsError(_exists(out)) from error
        raise


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _exists(out: Path) -> str:
    return f"{out} exists already and was left as it is; choose another name or remove it"


def _no_space(out: Path, needed: int) -> str:
    return (
        f"{out} needs {needed:,} bytes and {out.parent} has {_free(out.parent):,} free; "
        "nothing was left behind, free some space or choose another disk"
    )
