"""What every blob store must do, wherever it keeps its bytes."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    CheckpointFormatError,
    DigestMismatchError,
    MissingError,
    TooLargeError,
    TruncatedFileError,
)
from ckptmerge.storage.blobs import BlobReader, BlobStore, BlobWriter, put, read
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore

MAKERS: dict[str, Callable[[Path], BlobStore]] = {
    "memory": lambda _path: MemoryBlobStore(),
    "folder": lambda path: FolderBlobStore(path / "blobs", reserve=0),
}

CONTENT = bytes(range(256)) * 5
DIGEST = Digest.of_bytes(CONTENT)
ABSENT = Digest.of_bytes(b"never stored")


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    made = MAKERS[request.param](tmp_path)
    yield made
    if isinstance(made, FolderBlobStore):
        made.close()


class TestBlobStore:
    def test_it_has_the_shape_of_a_blob_store(self, store: BlobStore) -> None:
        assert isinstance(store, BlobStore)
        put(store, CONTENT)
        with store.writer() as writer, store.open(DIGEST) as reader:
            assert isinstance(writer, BlobWriter)
            assert isinstance(reader, BlobReader)

    @pytest.mark.parametrize("pieces", [1, 7, 256, 10_000])
    def test_bytes_come_back_as_they_went_in(self, store: BlobStore, pieces: int) -> None:
        with store.writer() as writer:
            for start in range(0, len(CONTENT), pieces):
                writer.write(CONTENT[start : start + pieces])
            assert writer.received == len(CONTENT)
            assert writer.commit() == DIGEST
        assert store.size(DIGEST) == len(CONTENT)
        assert read(store, DIGEST) == CONTENT
        assert list(store) == [DIGEST]

    def test_a_file_can_be_a_blob_where_it_lies(self, store: BlobStore, tmp_path: Path) -> None:
        file = tmp_path / "model.safetensors"
        file.write_bytes(CONTENT)
        assert store.take_in_place(file) == (DIGEST, len(CONTENT))
        assert store.size(DIGEST) == len(CONTENT)
        assert read(store, DIGEST) == CONTENT
        assert store.path(DIGEST) == file
        assert list(store) == [DIGEST]
        assert not store.is_own(DIGEST)

    @pytest.mark.parametrize("change", ["rewritten", "grown", "replaced", "removed"])
    def test_a_file_elsewhere_is_no_blob_any_more_once_it_changes(
        self, store: BlobStore, tmp_path: Path, change: str
    ) -> None:
        file = tmp_path / "model.safetensors"
        file.write_bytes(CONTENT)
        store.take_in_place(file)
        before = file.stat()
        if change == "rewritten":
            file.write_bytes(CONTENT[::-1])
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        elif change == "grown":
            file.write_bytes(CONTENT + b"x")
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif change == "replaced":
            other = tmp_path / "other"
            other.write_bytes(CONTENT)
            os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
            other.rename(file)
        else:
            file.unlink()
        assert store.size(DIGEST) is None
        assert list(store) == []
        for ask in (store.open, store.path):
            with pytest.raises(MissingError, match="registered in place"):
                ask(DIGEST)

    def test_a_file_elsewhere_is_never_removed(self, store: BlobStore, tmp_path: Path) -> None:
        file = tmp_path / "model.safetensors"
        file.write_bytes(CONTENT)
        store.take_in_place(file)
        store.delete(DIGEST)
        assert store.size(DIGEST) is None
        assert file.read_bytes() == CONTENT

    def test_bytes_that_are_sent_are_kept_although_they_lie_elsewhere(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "model.safetensors"
        file.write_bytes(CONTENT)
        store.take_in_place(file)
        with store.writer() as writer:
            writer.write(CONTENT)
            writer.commit()
        file.unlink()
        assert store.is_own(DIGEST)
        assert read(store, DIGEST) == CONTENT
        assert list(store) == [DIGEST]

    def test_only_a_regular_file_is_taken_in_place(self, store: BlobStore, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(CONTENT)
        (tmp_path / "link").symlink_to(tmp_path / "file")
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CheckpointFormatError, match="not a regular file"):
            store.take_in_place(tmp_path / "pipe")
        with pytest.raises(CheckpointFormatError, match="not a regular file"):
            store.take_in_place(tmp_path / "link")
        assert list(store) == []

    def test_a_blob_may_be_empty(self, store: BlobStore) -> None:
        with store.writer(size=0) as writer:
            writer.write(b"")
            digest = writer.commit()
        assert digest == Digest.of_bytes(b"")
        assert store.size(digest) == 0
        assert read(store, digest) == b""

    def test_a_buffer_may_be_used_again_at_once(self, store: BlobStore) -> None:
        buffer = bytearray(b"first")
        with store.writer() as writer:
            writer.write(buffer)
            buffer[:] = b"other"
            writer.write(memoryview(buffer))
            assert writer.commit() == Digest.of_bytes(b"firstother")

    def test_a_view_of_wider_items_counts_its_bytes(self, store: BlobStore) -> None:
        wide = memoryview(CONTENT).cast("I")
        with store.writer(size=len(CONTENT), expected=DIGEST) as writer:
            writer.write(wide)
            assert writer.received == len(CONTENT)
            writer.commit()
        assert read(store, DIGEST) == CONTENT

    def test_any_part_can_be_read_and_nothing_beyond_the_end(self, store: BlobStore) -> None:
        put(store, CONTENT)
        with store.open(DIGEST) as reader:
            assert reader.size == len(CONTENT)
            assert reader.read(0, 3) == CONTENT[:3]
            assert reader.read(1000, 10) == CONTENT[1000:1010]
            assert reader.read(len(CONTENT) - 2, 10) == CONTENT[-2:]
            assert reader.read(len(CONTENT), 10) == b""
            assert reader.read(10**9, 10) == b""
            assert reader.read(5, 0) == b""

    def test_bytes_are_visible_only_once_they_are_committed(self, store: BlobStore) -> None:
        with store.writer() as writer:
            writer.write(CONTENT)
            assert store.size(DIGEST) is None
            assert list(store) == []
            writer.commit()
            assert store.size(DIGEST) == len(CONTENT)

    def test_a_writer_that_is_not_committed_leaves_nothing(self, store: BlobStore) -> None:
        with store.writer() as writer:
            writer.write(CONTENT)
        assert store.size(DIGEST) is None
        assert list(store) == []

    def test_an_error_in_the_middle_leaves_nothing(self, store: BlobStore) -> None:
        def broken() -> None:
            with store.writer() as writer:
                writer.write(CONTENT)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            broken()
        assert list(store) == []

    def test_fewer_bytes_than_announced_are_refused(self, store: BlobStore) -> None:
        with store.writer(size=len(CONTENT) + 1) as writer:
            writer.write(CONTENT)
            with pytest.raises(TruncatedFileError, match=r"1,280 of 1,281 .* send them again"):
                writer.commit()
        assert list(store) == []

    def test_more_bytes_than_announced_are_refused(self, store: BlobStore) -> None:
        with store.writer(size=len(CONTENT)) as writer:
            writer.write(CONTENT)
            with pytest.raises(TooLargeError, match="1,280 bytes that were announced"):
                writer.write(b"x")
        assert list(store) == []

    def test_other_bytes_than_announced_are_refused(self, store: BlobStore) -> None:
        with store.writer(expected=ABSENT) as writer:
            writer.write(CONTENT)
            with pytest.raises(DigestMismatchError, match=f"are {DIGEST}, announced was {ABSENT}"):
                writer.commit()
        assert list(store) == []

    def test_too_many_bytes_are_not_forgiven_later(self, store: BlobStore) -> None:
        with store.writer(size=len(CONTENT)) as writer:
            writer.write(CONTENT)
            with pytest.raises(TooLargeError):
                writer.write(b"x")
            with pytest.raises(ValueError, match="writer is over"):
                writer.commit()
        assert list(store) == []

    def test_a_refused_commit_is_not_tried_again(self, store: BlobStore) -> None:
        with store.writer(size=len(CONTENT)) as writer:
            writer.write(CONTENT[:-1])
            with pytest.raises(TruncatedFileError):
                writer.commit()
            with pytest.raises(ValueError, match="writer is over"):
                writer.write(CONTENT[-1:])
        assert list(store) == []

    def test_a_committed_blob_cannot_be_written_to(self, store: BlobStore) -> None:
        with store.writer() as writer:
            writer.write(CONTENT)
            writer.commit()
            with pytest.raises(ValueError, match="writer is over"):
                writer.write(b"more")
            with pytest.raises(ValueError, match="writer is over"):
                writer.commit()
        assert read(store, DIGEST) == CONTENT

    def test_a_writer_that_was_left_takes_nothing(self, store: BlobStore) -> None:
        with store.writer() as writer:
            pass
        with pytest.raises(ValueError, match="writer is over"):
            writer.write(b"late")

    def test_the_same_bytes_twice_are_one_blob(self, store: BlobStore) -> None:
        for _ in range(2):
            with store.writer() as writer:
                writer.write(CONTENT)
                assert writer.commit() == DIGEST
        assert list(store) == [DIGEST]
        assert read(store, DIGEST) == CONTENT

    def test_writers_of_the_same_bytes_at_once_all_succeed(self, store: BlobStore) -> None:
        together = threading.Barrier(8)
        digests: list[Digest] = []

        def upload() -> None:
            with store.writer(size=len(CONTENT), expected=DIGEST) as writer:
                writer.write(CONTENT)
                together.wait()
                digests.append(writer.commit())

        threads = [threading.Thread(target=upload) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert digests == [DIGEST] * 8
        assert list(store) == [DIGEST]

    def test_putting_what_is_there_writes_nothing(
        self, store: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert put(store, CONTENT) == DIGEST
        monkeypatch.setattr(store, "writer", None)
        assert put(store, CONTENT) == DIGEST

    def test_what_is_missing_is_said_to_be(self, store: BlobStore) -> None:
        put(store, CONTENT)
        assert store.size(ABSENT) is None
        for ask in (store.open, store.path, lambda digest: read(store, digest)):
            with pytest.raises(MissingError, match=f"no blob {ABSENT}"):
                ask(ABSENT)

    def test_a_path_leads_to_the_bytes(self, store: BlobStore) -> None:
        put(store, CONTENT)
        path = store.path(DIGEST)
        assert path is None or path.read_bytes() == CONTENT
        assert (path is None) == isinstance(store, MemoryBlobStore)

    def test_a_deleted_blob_is_gone_and_may_come_again(self, store: BlobStore) -> None:
        put(store, CONTENT)
        put(store, b"other")
        store.delete(DIGEST)
        store.delete(DIGEST)
        assert store.size(DIGEST) is None
        assert list(store) == [Digest.of_bytes(b"other")]
        put(store, CONTENT)
        assert read(store, DIGEST) == CONTENT

    def test_an_open_blob_outlives_its_deletion(self, store: BlobStore) -> None:
        put(store, CONTENT)
        with store.open(DIGEST) as reader:
            store.delete(DIGEST)
            assert reader.read(0, reader.size) == CONTENT

    def test_every_blob_is_named_once(self, store: BlobStore) -> None:
        digests = {put(store, bytes([number])) for number in range(20)}
        named = list(store)
        assert set(named) == digests
        assert len(named) == 20
