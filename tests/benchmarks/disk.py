"""What the disk itself takes: the limits that a merge is held against."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

_AT_ONCE = 16 * 2**20
"""Bytes read or written in one call."""


def evict(files: Sequence[Path]) -> None:
    """Drop files from the page cache, so that the next reader meets the disk.

    One file at a time, unlike /proc/sys/vm/drop_caches: needs no root, and nobody else's files
    turn cold. Pages not written back yet would stay, hence the sync.
    """
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def flush(folder: Path) -> None:
    """Wait until the files of a folder are on the disk."""
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(files: Sequence[Path]) -> float:
    """Read files one after the other; return the seconds it took."""
    buffer = bytearray(_AT_ONCE)
    begin = time.perf_counter()
    for file in files:
        with file.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass
    return time.perf_counter() - begin


def write(file: Path, size: int) -> float:
    """Write ``size`` bytes that no disk can compress, and wait for them; return the seconds."""
    block = os.urandom(_AT_ONCE)
    begin = time.perf_counter()
    with file.open("wb", buffering=0) as sink:
        for start in range(0, size, _AT_ONCE):
            sink.write(block[: size - start])
        os.fsync(sink.fileno())
    return time.perf_counter() - begin


def copy(source: Path, target: Path) -> float:
    """Copy the bytes of a file (no reflink), and wait for them; return the seconds."""
    buffer = memoryview(bytearray(_AT_ONCE))
    begin = time.perf_counter()
    with source.open("rb", buffering=0) as incoming, target.open("wb", buffering=0) as sink:
        while count := incoming.readinto(buffer):
            sink.write(buffer[:count])
        os.fsync(sink.fileno())
    return time.perf_counter() - begin
