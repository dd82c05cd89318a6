"""Blobs over HTTP: what ranges, conditions and bad uploads are answered with, and leave behind."""

import asyncio
import base64
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.types import Message, Receive
from structlog.testing import capture_logs

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import put, read
from ckptmerge.storage.folder import FolderReader
from service import downloads, uploads
from tests.integration.blob_service import (
    ADDRESS,
    CONTENT,
    DIGEST,
    HUGE,
    LARGEST,
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


# ------------------------------------------------------------------------------ an ASGI client


class Client:
    """An ASGI client that says what it is told to, and then leaves."""

    def __init__(self, *said: bytes, more: bool = False) -> None:
        self.said = [
            {"type": "http.request", "body": part, "more_body": more or number < len(said)}
            for number, part in enumerate(said, 1)
        ]
        self.taken = 0
        self.heard: list[Message] = []

    async def receive(self) -> Message:
        self.taken += 1
        return self.said.pop(0) if self.said else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.heard.append(message)
        await asyncio.sleep(0.005)  # long enough for its leaving to be seen

    def stay_until(self, messages: int) -> Receive:
        async def receive() -> Message:
            while len(self.heard) < messages:  # noqa: ASYNC110 - a list has no event
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        return receive

    def ask(self, app: FastAPI, method: str = "PUT", path: str = ADDRESS, **headers: str) -> int:
        """Return the status of the answer; 0 where none was sent."""
        lines = [(b"host", b"127.0.0.1")]
        lines += [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": method,
            "path": path, "query_string": b"", "headers": lines,
        }  # fmt: skip
        asyncio.run(app(scope, self.receive, self.send))
        return self.heard[0]["status"] if self.heard else 0

    def header(self, name: bytes) -> bytes | None:
        return dict(self.heard[0]["headers"]).get(name)


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


def test_a_blob_that_is_sent_is_there(service: Service) -> None:
    answer = service.client.put(ADDRESS, content=CONTENT)
    assert (answer.status_code, answer.headers["location"]) == (201, ADDRESS)
    assert read(service.blobs, DIGEST) == CONTENT
    assert service.recorded() == [DIGEST.hex]
    assert service.incoming() == []


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_the_size_of_parts_and_buffers_does_not_show(
    service: Service, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(uploads, "BUFFER", 100)
    content = CONTENT[:size]
    parts = [content[start : start + 33] for start in range(0, size, 33)] or [b""]
    digest = Digest.of_bytes(content)
    path = f"/v1/blobs/{digest}"
    assert Client(*parts).ask(service.app, path=path, content_length=str(size)) == 201
    assert read(service.blobs, digest) == content


def test_what_is_there_is_not_read_again(service: Service) -> None:
    put(service.blobs, CONTENT)
    client = Client(CONTENT)
    assert client.ask(service.app, content_length="1000") == 200
    assert client.taken == 0
    assert client.header(b"location") == ADDRESS.encode()
    assert service.recorded() == [DIGEST.hex]  # which a kill before the row had left out


@pytest.mark.parametrize(
    ("length", "status"),
    [(None, 411), ("", 411), ("-1", 411), ("1e3", 411), ("1_0", 411), ("\xb2", 411),
     (str(LARGEST + 1), 413), ("9" * 19, 413), ("1" + "0" * 19, 413), (HUGE, 413)],
)  # fmt: skip
def test_a_length_that_cannot_be_taken_is_refused_unread(
    service: Service, length: str | None, status: int
) -> None:
    client = Client(CONTENT)
    headers = {} if length is None else {"content_length": length}
    assert client.ask(service.app, **headers) == status
    assert client.header(b"connection") == b"close"
    assert client.taken == 0
    assert service.holds_nothing()


def test_what_the_disk_cannot_hold_is_refused_unread(service: Service) -> None:
    service.blobs._reserve = 2**60
    client = Client(CONTENT)
    assert client.ask(service.app, content_length="1000") == 507
    assert client.taken == 0
    assert service.holds_nothing()


@pytest.mark.parametrize(
    ("content", "length", "status", "kind"),
    [
        (CONTENT[:-1], 1000, 422, "truncated-file"),
        (b"", 1000, 422, "truncated-file"),
        (CONTENT + b"x", 1000, 413, "too-large"),
        (CONTENT[::-1], 1000, 422, "digest-mismatch"),
    ],
)
def test_a_body_other_than_announced_leaves_nothing(
    service: Service, content: bytes, length: int, status: int, kind: str
) -> None:
    client = Client(content)
    assert client.ask(service.app, content_length=str(length)) == status
    assert f"/problems/{kind}".encode() in client.heard[1]["body"]
    assert service.holds_nothing()


def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "BUFFER", 100)
    assert Client(CONTENT[:500], more=True).ask(service.app, content_length="1000") == 0
    assert service.holds_nothing()


def test_a_client_that_falls_silent_is_not_waited_for_for_ever(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 0.05)
    client = Client(CONTENT[:500], more=True)
    said = client.receive

    async def then_silent() -> Message:
        return await said() if client.said else await asyncio.Event().wait() or {}

    monkeypatch.setattr(client, "receive", then_silent)
    assert client.ask(service.app, content_length="1000") == 408
    assert client.header(b"connection") == b"close"
    assert service.holds_nothing()


def test_a_disk_that_fills_up_in_the_middle_is_a_problem(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _view: memoryview) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert Client(CONTENT).ask(service.app, content_length="1000") == 507
    assert service.holds_nothing()
    assert Client(CONTENT).ask(service.app, content_length="1000") == 201


def test_a_slow_disk_makes_the_client_wait(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most two buffers wait beside the one being written and the one being filled."""
    monkeypatch.setattr(uploads, "BUFFER", 10)
    real, taken = os.write, list[int]()
    client = Client(*(CONTENT[start : start + 10] for start in range(0, 1000, 10)))

    def slow(descriptor: int, view: memoryview) -> int:
        if not taken:
            time.sleep(0.2)
            taken.append(client.taken)
        return real(descriptor, view)

    monkeypatch.setattr(os, "write", slow)
    assert client.ask(service.app, content_length="1000") == 201
    assert 3 <= taken[0] <= 4
    assert read(service.blobs, DIGEST) == CONTENT


def test_every_operation_is_documented_under_a_name_of_its_own(service: Service) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (methods,) = get_openapi(title="", version="", routes=service.app.routes)["paths"].values()
    assert {name: method["operationId"] for name, method in methods.items()} == {
        "put": "put_blob", "get": "get_blob", "head": "head_blob",
    }  # fmt: skip
    assert {"200", "201", "408", "411", "413", "422", "507"} <= methods["put"]["responses"].keys()
    assert {"200", "206", "304", "404", "412", "416"} <= methods["get"]["responses"].keys()
