"""Folders whose names survive the loss of power, and what to say when a disk is full or fails."""

import errno
import os
from pathlib import Path

from ckptmerge.errors import CkptmergeError, DiskFailedError, OutOfSpaceError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a disk that has no room, or none for this user."""


def make_folder(folder: Path) -> None:
    """Make a folder durably, with the parents that it lacks."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_file(file: Path) -> None:
    """Make the bytes of a file durable."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(error: OSError, *, full: str, kept: str) -> CkptmergeError:
    """Return what to raise in the place of an error that the disk has answered a write with.

    Args:
        error: What the disk has answered.
        full: What to say where it has no room.
        kept: What is kept of the bytes where it fails otherwise, as a part of a sentence.
    """
    if error.errno in FULL:
        return OutOfSpaceError(full)
    return DiskFailedError(
        f"the disk failed ({error.strerror or error}); {kept}. Look at the disk, then send again"
    )
