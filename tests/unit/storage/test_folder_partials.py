"""Partial blobs on a disk: what was promised is on it, whatever fails afterwards."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import DiskFailedError, OutOfSpaceError
from ckptmerge.storage import folder_partials
from ckptmerge.storage.blobs import read
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.folder_partials import FolderPartial

CONTENT = bytes(number % 251 for number in range(5000))
DIGEST = Digest.of_bytes(CONTENT)


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[FolderBlobStore]:
    made = FolderBlobStore(tmp_path / "blobs", reserve=0)
    made.partials.create("a", room=0)
    yield made
    made.close()


def opened(blobs: FolderBlobStore, offset: int) -> FolderPartial:
    return blobs.partials.open("a", offset=offset, size=len(CONTENT), expected=DIGEST)


def append(partial: FolderPartial, content: bytes) -> int:
    partial.write(content)
    return partial.keep()


def failing(code: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def test_bytes_are_synced_before_they_are_promised_and_named(blobs, monkeypatch) -> None:
    real, steps = os.fsync, []

    def recorded(descriptor: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 - no file's link
        steps.append((place.name, blobs.size(DIGEST) is not None))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    with opened(blobs, 0) as partial:
        partial.write(CONTENT[:10])
        assert steps == []
        partial.keep()
    assert steps == [("a", False)]
    steps.clear()
    with opened(blobs, 10) as partial:
        partial.write(CONTENT[10:])
        partial.commit()
    assert steps == [("a", False), ("sha256", False), (DIGEST.hex[:2], True)]


def test_a_new_partial_blobs_name_is_synced(blobs, monkeypatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    blobs.partials.create("b", room=0)
    assert len(synced) == 1


@pytest.mark.parametrize("call", ["fsync", "pwrite"])
@pytest.mark.parametrize(
    ("code", "error"), [(errno.EIO, DiskFailedError), (errno.ENOSPC, OutOfSpaceError)]
)
def test_what_was_promised_outlives_a_disk_that_fails(
    blobs, monkeypatch, call: str, code: int, error: type[Exception]
) -> None:
    with opened(blobs, 0) as partial:
        append(partial, CONTENT[:2000])
    monkeypatch.setattr(os, call, failing(code))
    with opened(blobs, 2000) as partial:
        with pytest.raises(error):
            append(partial, CONTENT[2000:3000])
        monkeypatch.undo()
        with pytest.raises(error):  # and is not tried again
            partial.keep()
    with opened(blobs, 2000) as partial:
        partial.write(CONTENT[2000:])
        partial.commit()
    assert read(blobs, DIGEST) == CONTENT


def test_a_disk_that_fails_at_the_last_step_keeps_what_was_promised(blobs, monkeypatch) -> None:
    with opened(blobs, 0) as partial:
        append(partial, CONTENT[:2000])
    with opened(blobs, 2000) as partial:
        partial.write(CONTENT[2000:])
        monkeypatch.setattr(Path, "hardlink_to", failing(errno.EIO))
        with pytest.raises(DiskFailedError, match="Input/output"):
            partial.commit()
    monkeypatch.undo()
    assert list(blobs) == []
    with opened(blobs, 2000) as partial:
        partial.write(CONTENT[2000:])
        assert partial.commit() == DIGEST


def test_the_hash_goes_along_and_is_made_anew_after_a_restart(blobs, tmp_path, monkeypatch) -> None:
    made: list[int] = []
    real = folder_partials._hash

    def counted(descriptor: int, size: int) -> "hashlib._Hash":
        made.append(size)
        return real(descriptor, size)

    monkeypatch.setattr(folder_partials, "_hash", counted)
    for start in (0, 1000, 2000):
        with opened(blobs, start) as partial:
            partial.write(CONTENT[start : start + 1000])
            partial.keep()
    assert made == [0]
    again = FolderBlobStore(tmp_path / "blobs", reserve=0)
    with opened(again, 3000) as partial:
        partial.write(CONTENT[3000:])
        partial.commit()
    again.close()
    assert made == [0, 3000]
    assert read(blobs, DIGEST) == CONTENT


def test_nothing_lies_behind_the_end_of_a_blob(blobs, tmp_path) -> None:
    """A machine that lost power may leave a file longer than anybody wrote it."""
    (tmp_path / "blobs" / "partial" / "a").write_bytes(bytes(2 * len(CONTENT)))
    with opened(blobs, 0) as partial:
        partial.write(CONTENT)
        partial.commit()
    assert read(blobs, DIGEST) == CONTENT


def test_short_writes_are_continued(blobs, monkeypatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, view, place: real(fd, view[:999], place))
    with opened(blobs, 0) as partial:
        partial.write(CONTENT)
        assert partial.commit() == DIGEST
    assert read(blobs, DIGEST) == CONTENT


def test_nothing_stays_open(blobs) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names, not paths
    with opened(blobs, 0) as partial:
        partial.write(CONTENT)
        partial.keep()
    opened(blobs, 5000).commit()
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208 - names, not paths
