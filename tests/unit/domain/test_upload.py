"""An upload in pieces takes the append that comes next, and no other."""

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.upload import Upload
from ckptmerge.errors import UploadCompletedError, UploadLengthError, UploadOffsetError

DIGEST = Digest.of_bytes(b"")
HALF = Upload(DIGEST, length=10, offset=5)


@pytest.mark.parametrize(("size", "last"), [(0, False), (1, False), (5, False), (5, True)], ids=str)
def test_what_goes_on_where_the_upload_ends_may_be_appended(size: int, last: bool) -> None:
    HALF.require_append(offset=5, size=size, last=last)


@pytest.mark.parametrize("offset", [0, 4, 6, 10])
def test_nothing_may_be_appended_elsewhere(offset: int) -> None:
    with pytest.raises(UploadOffsetError, match="append from byte 5"):
        HALF.require_append(offset=offset, size=1, last=False)


@pytest.mark.parametrize(("size", "last"), [(6, False), (6, True), (4, True), (0, True)])
def test_an_append_keeps_to_the_length(size: int, last: bool) -> None:
    with pytest.raises(UploadLengthError):
        HALF.require_append(offset=5, size=size, last=last)


def test_nothing_is_appended_to_what_is_complete() -> None:
    whole = HALF.advanced(10).completed()
    assert (whole.state, whole.missing) == ("complete", 0)
    with pytest.raises(UploadCompletedError, match=str(DIGEST)):
        whole.require_append(offset=10, size=0, last=True)
    with pytest.raises(UploadLengthError):
        whole.require_append(offset=10, size=1, last=True)
    with pytest.raises(UploadOffsetError):
        whole.require_append(offset=5, size=1, last=True)


def test_all_bytes_being_there_does_not_make_it_complete() -> None:
    assert HALF.advanced(10).state == "open"


def test_an_upload_does_not_go_back_nor_beyond_its_end() -> None:
    assert HALF.advanced(5) == HALF
    with pytest.raises(UploadOffsetError):
        HALF.advanced(4)
    with pytest.raises(UploadLengthError):
        HALF.advanced(11)
    with pytest.raises(UploadLengthError):
        Upload(DIGEST, length=1, offset=-1)
