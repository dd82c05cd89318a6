"""The data folder: one server at a time, by a lock that ends with its holder however that dies."""

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from service.settings import ConfigurationError

DATABASE = "ckptmerge.sqlite"
"""The records, in the data folder."""

BLOBS = "blobs"
"""Folder of the bytes, in the data folder."""

LOCK = "server.lock"
"""File that a server holds locked; it holds the server's process id, for whoever comes second."""


class DataFolder:
    """A folder that one server owns; a context manager that lets go of it.

    The lock is the kernel's (flock), so neither a kill nor a power cut leaves it behind, and the
    file itself stays. Programs started by the server do not inherit it; a fork would.

    Args:
        path: The folder; made where it is missing, for this user alone.

    Raises:
        ConfigurationError: another process serves it, or it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._held = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"cannot use {self.path} as data folder: {error.strerror}; choose one that this "
                "user may write"
            ) from error
        self._held.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            self._held.close()
            raise ConfigurationError(
                f"{self.path} is already served by process {holder}; stop that one first, or "
                "choose another data folder"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()
