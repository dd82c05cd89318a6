"""Landing: the hidden folder in which a download comes together, continued after a kill."""

import errno
import fcntl
import glob
import os
import shutil
from contextlib import suppress
from pathlib import Path

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import OutputExistsError, RefusedError


class Landing:
    """A folder ``.<name>.download-<identity>`` beside ``out``; ``publish`` renames it to ``out``.

    Its name says what is being downloaded, so that whoever comes back for the same finds what is
    there already; a `ClaimedFolder` would begin anew. The kernel's lock on it ends with its holder.
    Folders that others left behind for the same ``out`` are removed.

    Raises:
        OutputExistsError: something stands at ``out`` already.
        RefusedError: another process downloads the same to ``out``.
    """

    def __init__(self, out: Path, identity: Digest) -> None:
        self._out = out.absolute()
        self._require_absent()
        self._out.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{self._out.name}.download-"
        self.folder = self._out.with_name(f"{prefix}{identity.hex[:16]}")
        """Where the files go."""
        _remove_others(self._out.parent, prefix, self.folder)
        self.folder.mkdir(exist_ok=True)
        descriptor = _lock(self.folder)
        if descriptor is None:
            raise RefusedError(
                f"another process downloads the same to {self._out}; wait for it, or choose "
                "another place"
            )
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go of the folder; what is in it stays."""
        os.close(self._descriptor)

    def publish(self) -> Path:
        """Make the folder durable and visible as ``out``.

        Raises:
            OutputExistsError: something appeared there meanwhile.
        """
        os.fsync(self._descriptor)
        self._require_absent()
        try:
            self.folder.rename(self._out)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise OutputExistsError(self._taken()) from error
            raise
        parent = os.open(self._out.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
        return self._out

    def _require_absent(self) -> None:
        if os.path.lexists(self._out):
            raise OutputExistsError(self._taken())

    def _taken(self) -> str:
        return f"{self._out} exists and was left as it is; choose another name or remove it"


def _lock(folder: Path) -> int | None:
    """Lock a folder until the descriptor closes; None where somebody else holds or moves it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    os.close(descriptor)
    return None


def _remove_others(parent: Path, prefix: str, own: Path) -> None:
    for folder in parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):
            descriptor = None if folder == own else _lock(folder)
            if descriptor is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)
