"""A hidden folder that its maker holds: when the maker dies, others can tell, and clear it away."""

import errno
import fcntl
import glob
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path


class ClaimedFolder:
    """A new folder ``<parent>/<prefix><random>``, locked for as long as its maker lives.

    The lock is the kernel's (flock on the folder itself), so a kill ends it like a return does.
    Making one first removes the folders of the same prefix that nobody holds any more.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        _remove_dead(parent, prefix)
        while True:
            self.path = parent / f"{prefix}{secrets.token_hex(4)}"
            self.path.mkdir()
            with suppress(BlockingIOError, FileNotFoundError):
                # Another maker may take a folder that is not locked yet for a dead one's: again.
                self._descriptor = _lock(self.path)
                return

    def remove(self) -> None:
        """Remove the folder, unless it has been renamed meanwhile, and let go of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def _lock(folder: Path) -> int:
    """Lock a folder until the descriptor closes, be it by the maker's death.

    Raises:
        OSError: somebody else holds the lock, or has removed the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(errno.ENOENT, "replaced meanwhile", str(folder))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_dead(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):
            descriptor = _lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)
