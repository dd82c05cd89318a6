"""The folder of blobs: what lies on the disk, in which order, and after bad days."""

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import DiskFailedError, MissingError, OutOfSpaceError
from ckptmerge.storage.blobs import put, read
from ckptmerge.storage.folder import FolderBlobStore

CONTENT = b"weights" * 1000
DIGEST = Digest.of_bytes(CONTENT)

Steps = list[tuple[str, str]]
Fail = Callable[[str, int, int], None]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FolderBlobStore]:
    made = FolderBlobStore(tmp_path / "blobs", reserve=0)
    yield made
    made.close()


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let a function of ``os`` fail once it has been called so many times."""

    def patch(name: str, code: int, after: int) -> None:
        real, calls = getattr(os, name), []

        def failing(*args: object, **kwargs: object) -> object:
            calls.append(args)
            if len(calls) == after + 1:
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, failing)

    return patch


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def store_content(store: FolderBlobStore) -> None:
    with store.writer(size=len(CONTENT), expected=DIGEST) as writer:
        writer.write(CONTENT)
        writer.commit()


def test_a_blob_lies_under_its_digest_for_its_owner_alone(store, tmp_path):
    put(store, CONTENT)
    place = tmp_path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
    assert files(tmp_path) == [place]
    assert store.path(DIGEST) == place
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.stat().st_nlink == 1


def test_bytes_on_their_way_in_lie_where_nobody_looks_for_blobs(store, tmp_path):
    with store.writer() as writer:
        writer.write(CONTENT)
        (partial,) = files(tmp_path)
        assert partial.parent.name.startswith(".incoming-")
        assert partial.stat().st_mode & 0o777 == 0o600
    assert files(tmp_path) == []


def test_what_is_not_a_blob_is_not_named(store, tmp_path):
    put(store, CONTENT)
    folder = tmp_path / "blobs" / "sha256" / DIGEST.hex[:2]
    (folder / "lost+found").write_bytes(b"")
    assert list(store) == [DIGEST]


# ------------------------------------------------------------------ what survives the loss of power


def record(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps: Steps = []
    fsync, link, mkdir = os.fsync, Path.hardlink_to, Path.mkdir

    def recorded_fsync(descriptor):
        steps.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def recorded_link(path, target):
        steps.append(("link", f"{Path(target).name} {path.name}"))
        return link(path, target)

    def recorded_mkdir(path, *args, **kwargs):
        steps.append(("make", path.name))
        return mkdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "hardlink_to", recorded_link)
    monkeypatch.setattr(Path, "mkdir", recorded_mkdir)
    return steps


def commit_recorded(store: FolderBlobStore, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Steps]:
    """Store a blob; return the name of its partial file and the durable steps of its commit."""
    with store.writer() as writer:
        writer.write(CONTENT)
        (partial,) = (store._incoming.path).iterdir()
        steps = record(monkeypatch)
        writer.commit()
        monkeypatch.undo()
    return partial.name, steps


def durable(partial: str, *, new_folder: bool) -> Steps:
    """The only order in which a cut after any step leaves the whole blob or none."""
    fan_out = DIGEST.hex[:2]
    made = [("make", fan_out), ("sync", "sha256")] if new_folder else []
    return [
        ("sync", partial), *made, ("link", f"{partial} {DIGEST.hex}"), ("sync", fan_out)
    ]  # fmt: skip


def test_bytes_are_synced_before_they_get_a_name_and_the_name_before_the_answer(store, monkeypatch):
    partial, steps = commit_recorded(store, monkeypatch)
    assert steps == durable(partial, new_folder=True)
    store.delete(DIGEST)
    partial, steps = commit_recorded(store, monkeypatch)
    assert steps == durable(partial, new_folder=False)


def test_the_order_would_be_seen_to_be_wrong_without_syncs(store, monkeypatch):
    """The negative control of the test above."""
    for module in ("folder", "durable"):
        monkeypatch.setattr(f"ckptmerge.storage.{module}.os", _WithoutSync())
    partial, steps = commit_recorded(store, monkeypatch)
    assert steps != durable(partial, new_folder=True)
    assert [kind for kind, _ in steps] == ["make", "link"]


class _WithoutSync:
    """The module ``os`` with an fsync that does nothing."""

    def __getattr__(self, name: str) -> object:
        return (lambda _descriptor: None) if name == "fsync" else getattr(os, name)


def test_a_name_that_another_upload_gave_is_synced_by_this_one_too(store, monkeypatch):
    """The other may not have come to its sync yet, and this one's answer must hold by itself."""
    put(store, CONTENT)
    partial, steps = commit_recorded(store, monkeypatch)
    assert steps == durable(partial, new_folder=False)
    assert read(store, DIGEST) == CONTENT


def test_a_folder_that_another_process_made_is_synced_before_it_is_relied_on(
    store, tmp_path, monkeypatch
):
    (tmp_path / "blobs" / "sha256" / DIGEST.hex[:2]).mkdir()
    partial, steps = commit_recorded(store, monkeypatch)
    assert steps == durable(partial, new_folder=True)


def test_names_that_a_killed_process_had_not_synced_are_synced_at_the_start(
    store, tmp_path, monkeypatch
):
    put(store, CONTENT)
    steps = record(monkeypatch)
    FolderBlobStore(tmp_path / "blobs", reserve=0).close()
    assert [name for kind, name in steps if kind == "sync"] == [DIGEST.hex[:2], "sha256"]


def test_a_new_root_is_synced_up_to_the_folder_that_was_there(tmp_path, monkeypatch):
    steps = record(monkeypatch)
    FolderBlobStore(tmp_path / "data" / "blobs", reserve=0).close()
    assert steps[:6] == [
        ("make", "data"), ("sync", tmp_path.name), ("make", "blobs"), ("sync", "data"),
        ("make", "sha256"), ("sync", "blobs"),
    ]  # fmt: skip


# ------------------------------------------------------------------------------- full and failing


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    ("function", "after"),
    [("open", 0), ("write", 0), ("write", 1), ("fsync", 0), ("mkdir", 0), ("link", 0),
     ("fsync", 1), ("fsync", 2)],
)  # fmt: skip
def test_a_full_disk_is_said_to_be_full(store, fail, function, after, code):
    before = descriptors()
    fail(function, code, after)
    with pytest.raises(OutOfSpaceError, match="free some space"):
        with_two_writes(store)
    assert list(store._incoming.path.iterdir()) == []
    assert descriptors() == before


@pytest.mark.parametrize(
    ("function", "after"), [("open", 0), ("write", 0), ("fsync", 0), ("fsync", 1), ("fsync", 2)]
)
def test_a_failing_disk_fails_the_upload(store, fail, function, after):
    before = descriptors()
    fail(function, errno.EIO, after)
    with pytest.raises(DiskFailedError, match="Input/output error"):
        with_two_writes(store)
    assert list(store._incoming.path.iterdir()) == []
    assert descriptors() == before


def with_two_writes(store: FolderBlobStore) -> None:
    with store.writer() as writer:
        writer.write(CONTENT[:10])
        writer.write(CONTENT[10:])
        writer.commit()


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_could_not_be_synced_has_no_name(store, fail, after):
    """Neither bytes, nor folder, nor name: who asks again must not be told that it is there."""
    fail("fsync", errno.EIO, after)
    with pytest.raises(DiskFailedError, match="Input/output error"):
        store_content(store)
    assert store.size(DIGEST) is None


def test_the_name_that_an_earlier_upload_gave_is_not_taken_back(store, fail):
    store_content(store)
    fail("fsync", errno.EIO, 1)
    with pytest.raises(DiskFailedError, match="Input/output error"):
        store_content(store)
    assert read(store, DIGEST) == CONTENT


def test_a_sync_that_failed_is_not_tried_again(store, fail):
    """The kernel drops what it could not write, and reports that only once."""
    fail("fsync", errno.EIO, 0)
    with store.writer() as writer:
        writer.write(CONTENT)
        with pytest.raises(DiskFailedError, match="Input/output error"):
            writer.commit()
        with pytest.raises(ValueError, match="writer is over"):
            writer.commit()
    assert list(store) == []


def test_bytes_with_a_hole_are_never_committed(store, fail):
    fail("write", errno.ENOSPC, 0)
    with store.writer() as writer:
        with pytest.raises(OutOfSpaceError):
            writer.write(CONTENT)
        with pytest.raises(ValueError, match="writer is over"):
            writer.commit()
    assert list(store) == []


def test_the_store_recovers_once_there_is_space(store, fail):
    fail("write", errno.ENOSPC, 0)
    with pytest.raises(OutOfSpaceError):
        store_content(store)
    store_content(store)
    assert read(store, DIGEST) == CONTENT


def test_short_writes_are_continued(store, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: real(descriptor, view[:999]))
    store_content(store)
    monkeypatch.undo()
    assert read(store, DIGEST) == CONTENT


def test_short_reads_are_continued(store, monkeypatch):
    store_content(store)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 999), offset))
    with store.open(DIGEST) as reader:
        assert reader.read(1, 5000) == CONTENT[1:5001]
        assert reader.read(6990, 5000) == CONTENT[6990:]


def test_what_does_not_fit_beside_the_reserve_is_refused_before_a_byte(tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage)
    store = FolderBlobStore(tmp_path, reserve=400)
    with store.writer(size=600), store.writer():
        pass
    with pytest.raises(OutOfSpaceError, match=r"601 bytes and the reserve of 400 .* 1,000 free"):
        store.writer(size=601)
    assert list(store._incoming.path.iterdir()) == []
    store.close()


# ---------------------------------------------------------------------------- others at the folder


def test_what_a_killed_process_was_writing_is_removed_by_the_next(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from ckptmerge.storage.folder import FolderBlobStore
        store = FolderBlobStore(Path(sys.argv[1]), reserve=0)
        with store.writer() as writer:
            writer.write(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -9
    assert [file.read_bytes() for file in files(tmp_path)] == [b"half of it"]
    FolderBlobStore(tmp_path, reserve=0).close()
    assert files(tmp_path) == []


def test_what_a_living_store_is_writing_is_left_to_it(store, tmp_path):
    with store.writer() as writer:
        writer.write(CONTENT)
        second = FolderBlobStore(tmp_path / "blobs", reserve=0)
        put(second, b"of the second")
        second.close()
        assert writer.commit() == DIGEST
    assert read(store, DIGEST) == CONTENT
    assert read(store, Digest.of_bytes(b"of the second")) == b"of the second"


def test_closing_leaves_only_blobs(tmp_path):
    store = FolderBlobStore(tmp_path, reserve=0)
    put(store, CONTENT)
    writer = store.writer()
    writer.write(b"unfinished")
    store.close()
    assert files(tmp_path) == [tmp_path / "sha256" / DIGEST.hex[:2] / DIGEST.hex]
    writer.__exit__(None, None, None)


def test_a_blob_that_is_deleted_while_it_is_opened_is_missing(store, monkeypatch):
    """Not a file-not-found, which would be answered as a failure of the service."""
    put(store, CONTENT)
    real = os.open

    def deleted_first(path, *rest):
        store.delete(DIGEST)
        return real(path, *rest)

    monkeypatch.setattr(os, "open", deleted_first)
    with pytest.raises(MissingError, match=f"no blob {DIGEST}"):
        store.open(DIGEST)


def test_a_link_in_the_place_of_a_blob_is_not_followed(store, tmp_path):
    put(store, CONTENT)
    place = store.path(DIGEST)
    place.unlink()
    (tmp_path / "secret").write_bytes(b"secret")
    place.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        store.open(DIGEST)


def test_no_descriptor_is_left_open(tmp_path):
    before = descriptors()
    store = FolderBlobStore(tmp_path, reserve=0)
    store_content(store)
    read(store, DIGEST)
    with store.writer() as writer:
        writer.write(b"given up")
    store.close()
    assert descriptors() == before
