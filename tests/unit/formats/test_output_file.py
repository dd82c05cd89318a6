"""The output file: the same bytes whether or not they went past the page cache."""

import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

from ckptmerge.formats import output_file
from ckptmerge.formats.output_file import OutputFile

STAGED = 8 * 2**20
SIZES = (0, 1, 4095, 4096, 4097, STAGED - 1, STAGED, STAGED + 1, 2 * STAGED + 5000)


def pieces(size: int) -> list[bytes]:
    """Bytes that no two places share, cut where nothing is aligned."""
    drawn = np.random.default_rng(size)
    content = drawn.bytes(size)
    cuts = sorted(drawn.integers(size + 1, size=5).tolist())
    return [content[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]


def write(path: Path, parts: list[bytes], *, direct_from: int) -> bool:
    with OutputFile(path, sum(map(len, parts)), direct_from=direct_from) as file:
        for part in parts:
            file.write(memoryview(part))
        file.sync()
        return file.direct


@pytest.fixture
def can_go_direct(tmp_path):
    """Whether this file system lets files be written past the cache."""
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_arrives_past_the_cache_and_through_it(tmp_path, size, can_go_direct):
    parts = pieces(size)
    assert write(tmp_path / "direct", parts, direct_from=0) == can_go_direct
    assert not write(tmp_path / "cached", parts, direct_from=size + 1)
    assert (tmp_path / "direct").read_bytes() == b"".join(parts)
    assert (tmp_path / "cached").read_bytes() == b"".join(parts)


def test_a_view_may_be_used_again_after_it_was_written(tmp_path):
    buffer = bytearray(b"a" * 5000)
    with OutputFile(tmp_path / "f", 10_000, direct_from=0) as file:
        file.write(memoryview(buffer))
        buffer[:] = b"b" * 5000
        file.write(memoryview(buffer))
        file.sync()
    assert (tmp_path / "f").read_bytes() == b"a" * 5000 + b"b" * 5000


@pytest.mark.parametrize("short", [4096, 1000])
def test_a_short_write_goes_on_where_it_ended(tmp_path, monkeypatch, short):
    """After 1000 bytes the next ones begin between two sectors, where only the cache can write."""
    real, calls = os.write, []

    def short_once(descriptor, view):
        calls.append(len(view))
        if len(calls) > 1:
            return real(descriptor, view)
        output_file._go_buffered(descriptor)
        written = real(descriptor, view[:short])
        output_file._go_direct(descriptor)
        return written

    monkeypatch.setattr(os, "write", short_once)
    parts = pieces(2 * STAGED + 5000)
    write(tmp_path / "f", parts, direct_from=0)
    assert len(calls) > 2
    assert (tmp_path / "f").read_bytes() == b"".join(parts)


def test_a_file_system_that_cannot_is_written_through_the_cache(tmp_path, monkeypatch):
    def refuse(descriptor, view):
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return real(descriptor, view)

    real = os.write
    monkeypatch.setattr(os, "write", refuse)
    parts = pieces(STAGED + 1)
    write(tmp_path / "f", parts, direct_from=0)
    assert (tmp_path / "f").read_bytes() == b"".join(parts)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EINVAL])
def test_an_error_of_the_disk_is_raised_and_not_tried_again(tmp_path, monkeypatch, code):
    calls = []

    def fail(_descriptor, view):
        calls.append(len(view))
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match=os.strerror(code)):
        write(tmp_path / "f", pieces(STAGED), direct_from=0)
    assert len(calls) <= 1 + (code == errno.EINVAL)


def test_an_existing_file_is_left_alone(tmp_path):
    (tmp_path / "f").write_text("mine")
    with pytest.raises(FileExistsError):
        OutputFile(tmp_path / "f", 1)
    assert (tmp_path / "f").read_text() == "mine"
