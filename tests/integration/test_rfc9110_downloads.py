"""RFC 9110, sections 13 to 15, as a table: what we answer, and what nginx makes of the same."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from ckptmerge.storage.blobs import put
from tests.integration.blob_service import (
    ADDRESS,
    CONTENT,
    DIGEST,
    HUGE,
    OTHER,
    TAG,
    Service,
)
from tests.integration.nginx_server import nginx_serving

Headers = tuple[tuple[str, str], ...]
Expected = int | tuple[int, int]
"""A status; or the first and last byte of a 206."""

# ------------------------------------------------------------- where nginx 1.22 answers otherwise

REJECTS = "14.2: an invalid range may be ignored or rejected, and nginx rejects it"
SEVERAL = "14.2: several ranges may be ignored, and nginx serves them, or the first of them"
BLANKS = "14.1.1: a range has no blanks in it, and nginx passes over them"
BEYOND = "14.1.2: what ends beyond the end ends there; nginx cannot read such a number"
EMPTY = "14.2: a range may be ignored, and nginx ignores those of empty files"
LINES = "5.3: the lines of a list are one list; nginx takes one line"
DATED = "13.1.4: files of nginx have a date to compare with, and a blob has none"
BOTH = "13.1.3: If-Modified-Since does not count beside If-None-Match; for nginx it does"


@dataclass(frozen=True)
class Row:
    headers: Headers
    expected: Expected
    nginx: str | None = None
    """Why nginx answers otherwise."""
    empty: bool = False
    """Whether it is asked of a file without bytes."""

    def __str__(self) -> str:
        return ("empty " if self.empty else "") + str(self.headers)[:60]


def rows(
    expected: Expected, name: str, *values: str, beside: Headers = (), nginx: str | None = None
) -> list[Row]:
    return [Row((*beside, (name, value)), expected, nginx) for value in values]


PART, OUTSIDE = (("Range", "bytes=0-9"),), (("Range", "bytes=1000-"),)
SAME, NOT_SAME = (("If-Match", TAG),), (("If-Match", OTHER),)
HAVE, HAVE_OTHER = (("If-None-Match", TAG),), (("If-None-Match", OTHER),)
PAST, FUTURE = "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"

TABLE = [
    Row((), 200),
    # 14.1.2: what lies inside, also where it is written oddly or reaches beyond the end
    *rows((0, 0), "Range", "bytes=0-0", "BYTES=0-0", "bytes=00-000", f"bytes={'0' * 5000}-0"),
    *rows((10, 19), "Range", "bytes=10-19"),
    *rows((0, 999), "Range", "bytes=0-", "bytes=0-999", "bytes=0-1000"),
    *rows((0, 999), "Range", f"bytes=0-{HUGE}", f"bytes=-{HUGE}", nginx=BEYOND),
    *rows((999, 999), "Range", "bytes=999-", "bytes=999-999", "bytes=-1", "bytes=-0001"),
    *rows((0, 999), "Range", "bytes=-1000", "bytes=-1001"),
    # 15.5.17: what lies outside
    *rows(416, "Range", "bytes=1000-", "bytes=1000-2000", f"bytes={HUGE}-", "bytes=-0"),
    # 14.2: what is no range, no unit we know, or more than one, is as if it were not there
    *rows(200, "Range", "bytes=", "bytes", "", "bytes = 0-1", "bytes: 0-1", "items=0-1", "none",
          "0-1"),
    *rows(200, "Range", "bytes=5-4", "bytes=-", "bytes=a-b", "bytes=1_0-1_9", "bytes=+1-2",
          "bytes=1-2x", "bytes=0x1-2", "bytes=\xb2-\xb3", "bytes=--1", nginx=REJECTS),
    *rows(200, "Range", "bytes= 0-9", "bytes=0 - 9", nginx=BLANKS),
    *rows(200, "Range", "bytes=0-1,5-6", "bytes=0-1, 5000-", nginx=SEVERAL),
    *rows(200, "Range", f"bytes={'0-0,' * 999}", nginx=REJECTS),
    *rows(200, "Range", "bytes=20-29", beside=PART, nginx=SEVERAL),
    # 13.1.5: a part only of the very bytes that the client has begun with
    *rows((0, 9), "If-Range", TAG, beside=PART),
    *rows(200, "If-Range", OTHER, f"W/{TAG}", DIGEST.hex, PAST, FUTURE, "", beside=PART),
    *rows(200, "If-Range", f"{OTHER}, {TAG}", beside=PART),
    *rows(416, "If-Range", TAG, beside=OUTSIDE),
    *rows(200, "If-Range", OTHER, beside=OUTSIDE),
    *rows(200, "If-Range", TAG),
    # 13.1.1: strong comparison
    *rows(200, "If-Match", TAG, "*", f"{OTHER}, {TAG}"),
    *rows(412, "If-Match", OTHER, f"W/{TAG}", DIGEST.hex, ""),
    *rows(200, "If-Match", TAG, beside=NOT_SAME, nginx=LINES),
    # 13.1.2: weak comparison
    *rows(304, "If-None-Match", TAG, f"W/{TAG}", "*", f"{OTHER} ,{TAG}", f"{OTHER},W/{TAG}"),
    *rows(200, "If-None-Match", OTHER, DIGEST.hex, "", f"{OTHER}, W/{OTHER}"),
    *rows(304, "If-None-Match", TAG, beside=HAVE_OTHER, nginx=LINES),
    # 13.2.2: their order, and then the range
    Row(NOT_SAME + HAVE, 412), Row(SAME + HAVE, 304), Row(SAME + HAVE_OTHER + PART, (0, 9)),
    Row(NOT_SAME + PART, 412), Row(NOT_SAME + OUTSIDE, 412),
    Row(HAVE + PART, 304), Row(HAVE + OUTSIDE, 304),
    # 13.1.3 and 13.1.4: conditions on a date that there is not
    *rows(200, "If-Modified-Since", PAST, "yesterday"),
    *rows(200, "If-Unmodified-Since", FUTURE),
    *rows(200, "If-Unmodified-Since", PAST, nginx=DATED),
    *rows(200, "If-Unmodified-Since", PAST, beside=SAME, nginx=DATED),
    *rows(304, "If-Modified-Since", PAST, beside=HAVE, nginx=BOTH),
    # a file without bytes: its last five are all of it, which no Content-Range can say
    Row((), 200, empty=True),
    Row((("Range", "bytes=-5"),), 200, empty=True),
    Row((("Range", "bytes=0-"),), 416, EMPTY, empty=True),
    Row((("Range", "bytes=0-0"),), 416, EMPTY, empty=True),
    Row((("Range", "bytes=-0"),), 416, EMPTY, empty=True),
]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A blob and an empty one, and what the tag of the first is there."""

    client: httpx2.Client
    full: str
    empty: str
    tag: str

    def answer(self, method: str, row: Row) -> httpx2.Response:
        """Ask, with this place's tag for ours."""
        bare = self.tag.strip('"')
        headers = [
            (name.encode(), value.replace(DIGEST.hex, bare).encode("latin-1"))
            for name, value in row.headers
        ]
        address = self.empty if row.empty else self.full
        return self.client.request(method, address, headers=headers)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Service(tmp_path_factory.mktemp("ours"))
    put(made.blobs, CONTENT)
    empty = put(made.blobs, b"")
    with made.client:  # one event loop for all rows
        yield Place(made.client, ADDRESS, f"/v1/blobs/{empty}", TAG)
    made.close()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "full").write_bytes(CONTENT)
    (folder / "empty").write_bytes(b"")
    with nginx_serving(folder, tmp_path_factory.mktemp("nginx")) as client:
        yield Place(client, "/full", "/empty", client.head("/full").headers["etag"])


@dataclass(frozen=True)
class Meaning:
    """What of an answer the RFC has a say in."""

    status: int
    content: bytes | None
    length: str | None
    span: str | None


def expected(method: str, row: Row) -> Meaning:
    whole, status = b"" if row.empty else CONTENT, row.expected
    if method == "HEAD" and (status == 416 or isinstance(status, tuple)):
        status = 200  # 14.2: a range means something to GET alone
    if isinstance(status, tuple):
        first, last = status
        part = whole[first : last + 1]
        return Meaning(206, part, str(len(part)), f"bytes {first}-{last}/{len(whole)}")
    if status == 200:
        return Meaning(200, whole if method == "GET" else b"", str(len(whole)), None)
    return Meaning(status, None, None, f"bytes */{len(whole)}" if status == 416 else None)


def found(answer: httpx2.Response) -> Meaning:
    held, span = answer.status_code in {200, 206}, answer.headers.get("content-range")
    if not held:
        return Meaning(answer.status_code, None, None, span)
    return Meaning(answer.status_code, answer.content, answer.headers["content-length"], span)


def test_the_table_is_long_enough_to_be_worth_its_name() -> None:
    assert len(TABLE) >= 40
    assert sum(row.nginx is None for row in TABLE) >= 40


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_the_answer_is_that_of_the_rfc(ours: Place, method: str, row: Row) -> None:
    answer = ours.answer(method, row)
    assert found(answer) == expected(method, row)
    status, said = answer.status_code, answer.headers
    assert "content-encoding" not in said
    if not row.empty:
        assert said["etag"] == TAG
    if status in {200, 206} and not row.empty:
        sha = base64.b64encode(bytes.fromhex(DIGEST.hex)).decode()
        assert said["repr-digest"] == f"sha-256=:{sha}:"
        assert said["content-disposition"] == f'attachment; filename="{DIGEST.hex}"'
    if status in {200, 206}:
        assert said["accept-ranges"] == "bytes"
        assert said["x-content-type-options"] == "nosniff"
        assert said["content-type"] == "application/octet-stream"
    if status in {200, 206, 304}:
        assert said["cache-control"] == "public, max-age=31536000, immutable"
    if status == 304:
        assert (answer.content, said.get("content-length")) == (b"", None)
    if status in {412, 416}:
        assert said["content-type"] == "application/problem+json"


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_nginx_answers_the_same_but_where_it_is_said_not_to(nginx: Place, row: Row) -> None:
    """A row of ours that the oracle does not share has to say why, and only such a row may."""
    same = found(nginx.answer("GET", row)) == expected("GET", row)
    assert same is (row.nginx is None)


def test_ranges_are_for_get_alone_although_nginx_has_them_for_head(
    ours: Place, nginx: Place
) -> None:
    """14.2: "A server MUST ignore a Range header field received with ... [other] methods"."""
    row = Row(PART, 200)
    assert ours.answer("HEAD", row).status_code == 200
    assert nginx.answer("HEAD", row).status_code == 206
