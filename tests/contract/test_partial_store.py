"""What every store of partial blobs must do, wherever it keeps its bytes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    MissingError,
    TooLargeError,
    TruncatedFileError,
)
from ckptmerge.storage.blobs import BlobStore, read
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from ckptmerge.storage.partial import PartialBlob, PartialStore

MAKERS: dict[str, Callable[[Path], BlobStore]] = {
    "memory": lambda _path: MemoryBlobStore(),
    "folder": lambda path: FolderBlobStore(path / "blobs", reserve=0),
}

CONTENT = bytes(range(256)) * 5
DIGEST = Digest.of_bytes(CONTENT)


@pytest.fixture(params=MAKERS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    made = MAKERS[request.param](tmp_path)
    made.partials.create("a", room=len(CONTENT))
    yield made
    if isinstance(made, FolderBlobStore):
        made.close()


def opened(blobs: BlobStore, offset: int, *, expected: Digest = DIGEST) -> PartialBlob:
    return blobs.partials.open("a", offset=offset, size=len(CONTENT), expected=expected)


def keep(blobs: BlobStore, content: bytes, offset: int) -> int:
    with opened(blobs, offset) as partial:
        partial.write(content)
        return partial.keep()


class TestPartialStore:
    def test_it_has_the_shape_of_a_store_of_partial_blobs(self, blobs: BlobStore) -> None:
        assert isinstance(blobs.partials, PartialStore)
        with opened(blobs, 0) as partial:
            assert isinstance(partial, PartialBlob)

    def test_what_is_kept_is_gone_on_with(self, blobs: BlobStore) -> None:
        assert keep(blobs, CONTENT[:500], 0) == 500
        assert keep(blobs, CONTENT[500:501], 500) == 501
        with opened(blobs, 501) as partial:
            assert partial.position == 501
            partial.write(memoryview(CONTENT[501:]))
            assert list(blobs) == []
            assert partial.commit() == DIGEST
        assert read(blobs, DIGEST) == CONTENT
        assert list(blobs.partials) == []

    def test_what_was_not_kept_comes_again(self, blobs: BlobStore) -> None:
        keep(blobs, CONTENT[:500], 0)
        with opened(blobs, 500) as partial:
            partial.write(b"these were never promised")
        with opened(blobs, 500) as partial:
            partial.write(CONTENT[500:])
            partial.commit()
        assert read(blobs, DIGEST) == CONTENT

    def test_what_lies_beyond_the_promise_comes_again(self, blobs: BlobStore) -> None:
        """It was kept, and the record of it was not written any more."""
        keep(blobs, CONTENT[:500], 0)
        keep(blobs, b"kept, and promised to nobody", 500)
        with opened(blobs, 500) as partial:
            partial.write(CONTENT[500:])
            partial.commit()
        assert read(blobs, DIGEST) == CONTENT

    def test_bytes_of_another_digest_leave_nothing(self, blobs: BlobStore) -> None:
        with opened(blobs, 0) as partial:
            partial.write(CONTENT[:-1] + b"x")
            with pytest.raises(DigestMismatchError, match="upload them again"):
                partial.commit()
        assert [*blobs, *blobs.partials] == []

    def test_too_few_bytes_are_no_blob_and_stay(self, blobs: BlobStore) -> None:
        with opened(blobs, 0) as partial:
            partial.write(CONTENT[:-1])
            with pytest.raises(TruncatedFileError):
                partial.commit()
            assert partial.keep() == len(CONTENT) - 1
        assert list(blobs) == []

    def test_more_bytes_than_announced_are_not_taken(self, blobs: BlobStore) -> None:
        with opened(blobs, 0) as partial:
            partial.write(CONTENT[:-1])
            with pytest.raises(TooLargeError):
                partial.write(b"xx")
            partial.write(CONTENT[-1:])
            assert partial.commit() == DIGEST

    def test_what_was_discarded_is_not_there(self, blobs: BlobStore) -> None:
        keep(blobs, CONTENT[:500], 0)
        blobs.partials.discard("a")
        blobs.partials.discard("a")
        with pytest.raises(MissingError, match="begin another"):
            opened(blobs, 500)

    def test_fewer_bytes_than_promised_are_not_gone_on_with(self, blobs: BlobStore) -> None:
        keep(blobs, CONTENT[:500], 0)
        with pytest.raises(MissingError):
            opened(blobs, 501)

    def test_what_is_removed_before_its_end_becomes_no_blob(self, blobs: BlobStore) -> None:
        with opened(blobs, 0) as partial:
            partial.write(CONTENT)
            blobs.partials.discard("a")
            with pytest.raises(MissingError):
                partial.commit()
        assert list(blobs) == []

    def test_after_its_end_nothing_is_taken(self, blobs: BlobStore) -> None:
        with opened(blobs, 0) as partial:
            partial.keep()
            for use in (lambda: partial.write(b"x"), partial.keep, partial.commit):
                with pytest.raises(ValueError, match="over"):
                    use()
