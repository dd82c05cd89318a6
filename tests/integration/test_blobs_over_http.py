"""Blobs over HTTP: what ranges and conditions are answered with."""

import base64
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from structlog.testing import capture_logs

from ckptmerge.storage.blobs import put
from ckptmerge.storage.folder import FolderReader
from service import downloads
from tests.integration.asgi_client import Client
from tests.integration.blob_service import (
    ADDRESS,
    CONTENT,
    DIGEST,
    HUGE,
    OTHER,
    TAG,
    Service,
    opened,
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "blobs")
    yield made
    made.close()


# ----------------------------------------------------------------------------- RFC 9110, as a table

Headers = tuple[tuple[str, str], ...]
Expected = int | tuple[int, int]
"""A status; or the first and last byte of a 206."""
Rows = list[tuple[Headers, Expected]]


def rows(expected: Expected, name: str, *values: str, beside: Headers = ()) -> Rows:
    return [((*beside, (name, value)), expected) for value in values]


PART, OUTSIDE = (("Range", "bytes=0-9"),), (("Range", "bytes=1000-"),)
SAME, NOT_SAME = (("If-Match", TAG),), (("If-Match", OTHER),)
HAVE, HAVE_OTHER = (("If-None-Match", TAG),), (("If-None-Match", OTHER),)
PAST, FUTURE = "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"

TABLE: Rows = [
    ((), 200),
    # 14.1.2: what lies inside, also where it is written oddly or reaches beyond the end
    *rows((0, 0), "Range", "bytes=0-0", "BYTES=0-0", "bytes=00-000", f"bytes={'0' * 5000}-0"),
    *rows((10, 19), "Range", "bytes=10-19"),
    *rows((0, 999), "Range", "bytes=0-", "bytes=0-999", "bytes=0-1000", f"bytes=0-{HUGE}"),
    *rows((999, 999), "Range", "bytes=999-", "bytes=999-999", "bytes=-1", "bytes=-0001"),
    *rows((0, 999), "Range", "bytes=-1000", "bytes=-1001", f"bytes=-{HUGE}"),
    # 15.5.17: what lies outside
    *rows(416, "Range", "bytes=1000-", "bytes=1000-2000", f"bytes={HUGE}-", "bytes=-0"),
    # 14.2: what is no range, no unit we know, or more than one, is as if it were not there
    *rows(200, "Range", "bytes=5-4", "bytes=", "bytes=-", "bytes", "", "bytes=a-b", "bytes=1_0-1_9",
          "bytes=+1-2", "bytes=1-2x", "bytes=0x1-2", "bytes = 0-1", "bytes: 0-1", "bytes=\xb2-\xb3",
          "bytes=--1", "items=0-1", "none", "0-1", "bytes=0-1,5-6", "bytes=0-1, 5000-",
          f"bytes={'0-0,' * 999}"),
    *rows(200, "Range", "bytes=20-29", beside=PART),
    # 13.1.5: a part only of the very bytes that the client has begun with
    *rows((0, 9), "If-Range", TAG, beside=PART),
    *rows(200, "If-Range", OTHER, f"W/{TAG}", DIGEST.hex, FUTURE, "", beside=PART),
    *rows(200, "If-Range", f"{OTHER}, {TAG}", beside=PART),
    *rows(416, "If-Range", TAG, beside=OUTSIDE),
    *rows(200, "If-Range", OTHER, beside=OUTSIDE),
    *rows(200, "If-Range", TAG),
    # 13.1.1: strong comparison
    *rows(200, "If-Match", TAG, "*", f"{OTHER}, {TAG}"),
    *rows(412, "If-Match", OTHER, f"W/{TAG}", DIGEST.hex, ""),
    *rows(200, "If-Match", TAG, beside=NOT_SAME),
    # 13.1.2: weak comparison
    *rows(304, "If-None-Match", TAG, f"W/{TAG}", "*", f"{OTHER} ,{TAG}"),
    *rows(200, "If-None-Match", OTHER, DIGEST.hex),
    *rows(304, "If-None-Match", TAG, beside=HAVE_OTHER),
    # 13.2.2: their order, and then the range
    (NOT_SAME + HAVE, 412), (SAME + HAVE, 304), (SAME + HAVE_OTHER + PART, (0, 9)),
    (NOT_SAME + PART, 412), (NOT_SAME + OUTSIDE, 412), (HAVE + PART, 304), (HAVE + OUTSIDE, 304),
    # 13.1.3 and 13.1.4: conditions on a date that there is not
    *rows(200, "If-Modified-Since", FUTURE),
    *rows(200, "If-Unmodified-Since", PAST),
    *rows(304, "If-Modified-Since", PAST, beside=HAVE),
]  # fmt: skip


def named(row: object) -> str | None:
    return str(row)[:60] if isinstance(row, (tuple, int)) else None


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("stocked"))
    put(made.blobs, CONTENT)
    with made.client:  # one event loop for all rows
        yield made
    made.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("headers", "expected"), TABLE, ids=named)
def test_the_answer_is_that_of_the_rfc(
    stocked: Service, method: str, headers: Headers, expected: Expected
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = stocked.client.request(method, ADDRESS, headers=raw)
    if method == "HEAD" and (expected == 416 or isinstance(expected, tuple)):
        expected = 200  # 14.2: a range means something to GET alone
    first, last = expected if isinstance(expected, tuple) else (0, len(CONTENT) - 1)
    status = 206 if isinstance(expected, tuple) else expected
    assert answer.status_code == status
    assert answer.headers["etag"] == TAG
    assert "content-encoding" not in answer.headers
    if status in {200, 206}:
        assert answer.content == (CONTENT[first : last + 1] if method == "GET" else b"")
        assert answer.headers["content-length"] == str(last + 1 - first)
        assert answer.headers["accept-ranges"] == "bytes"
        sha = base64.b64encode(bytes.fromhex(DIGEST.hex)).decode()
        assert answer.headers["repr-digest"] == f"sha-256=:{sha}:"
        assert answer.headers["content-disposition"] == f'attachment; filename="{DIGEST.hex}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"] == "application/octet-stream"
    if status in {200, 206, 304}:
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    if status == 304:
        assert (answer.content, answer.headers.get("content-length")) == (b"", None)
    if status in {412, 416}:
        assert answer.headers["content-type"] == "application/problem+json"
    told = {206: f"bytes {first}-{last}/1000", 416: "bytes */1000"}.get(status)
    assert answer.headers.get("content-range") == told


def test_the_last_bytes_of_nothing_are_all_of_it(service: Service) -> None:
    address = f"/v1/blobs/{put(service.blobs, b'')}"
    suffix = service.client.get(address, headers={"Range": "bytes=-5"})
    assert (suffix.status_code, suffix.content) == (200, b"")
    assert suffix.headers["content-length"] == "0"
    assert service.client.get(address, headers={"Range": "bytes=0-"}).status_code == 416


@pytest.mark.parametrize("chunk", [1, 7, 333, 1000, 1001])
def test_the_size_of_chunks_does_not_show(
    service: Service, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(downloads, "CHUNK", chunk)
    put(service.blobs, CONTENT)
    assert service.client.get(ADDRESS).content == CONTENT
    part = service.client.get(ADDRESS, headers={"Range": "bytes=5-40"})
    assert part.content == CONTENT[5:41]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_that_is_not_there_is_a_problem(service: Service, method: str) -> None:
    for headers in ({}, {"If-None-Match": "*"}, {"If-Match": "*"}, {"Range": "bytes=0-1"}):
        answer = service.client.request(method, ADDRESS, headers=headers)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("filename", "given"),
    [
        ("model-1.safetensors", 'filename="model-1.safetensors"'),
        ("モ.json", "filename*=UTF-8''%E3%83%A2.json"),
        ('a"\r\nX: b', "filename*=UTF-8''a%22%0D%0AX%3A%20b"),
    ],
)
def test_any_name_can_be_given_and_none_escapes(
    stocked: Service, filename: str, given: str
) -> None:
    asked = Request({"type": "http", "method": "HEAD", "headers": []})
    answer = downloads.blob_response(
        asked, lambda: stocked.blobs.open(DIGEST), digest=DIGEST, filename=filename
    )
    assert answer.headers["content-disposition"] == f"attachment; {given}"


@pytest.mark.parametrize(
    "headers",
    [{}, {"range": "bytes=5-"}, {"range": "bytes=1000-"}, {"if_none_match": "*"},
     {"if_match": OTHER}],
)  # fmt: skip
@pytest.mark.parametrize("stays", [0, 3, 99])
def test_a_blob_is_closed_whatever_becomes_of_the_answer(
    stocked: Service, monkeypatch: pytest.MonkeyPatch, stays: int, headers: dict[str, str]
) -> None:
    """A client stays for so many messages: none, the first of ten chunks, or all there are."""
    monkeypatch.setattr(downloads, "CHUNK", 100)
    for method in ("GET", "HEAD"):
        before, client = len(opened()), Client()
        monkeypatch.setattr(client, "receive", client.stay_until(stays))
        client.ask(stocked.app, method, **headers)
        assert len(opened()) == before
        assert len(client.heard) < 6 or stays == 99


def test_a_blob_that_cannot_be_read_is_closed_too(
    stocked: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(FolderReader, "read", broken)
    before, client = len(opened()), Client()
    monkeypatch.setattr(client, "receive", client.stay_until(99))
    with capture_logs() as lines, pytest.raises(OSError, match="Input/output error"):
        client.ask(stocked.app, "GET")
    assert lines[0]["event"] == "request failed"
    assert len(opened()) == before


def test_every_operation_is_documented_under_a_name_of_its_own(service: Service) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (methods,) = get_openapi(title="", version="", routes=service.app.routes)["paths"].values()
    assert {name: method["operationId"] for name, method in methods.items()} == {
        "put": "put_blob", "get": "get_blob", "head": "head_blob",
    }  # fmt: skip
    assert {"200", "201", "408", "411", "413", "422", "507"} <= methods["put"]["responses"].keys()
    assert {"200", "206", "304", "404", "412", "416"} <= methods["get"]["responses"].keys()
