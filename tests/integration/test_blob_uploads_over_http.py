"""Blobs sent over HTTP: what good and bad uploads are answered with, and leave behind."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import put, read
from ckptmerge.storage.folder import FolderWriter
from service import uploads
from tests.integration.asgi_client import Client
from tests.integration.blob_service import (
    ADDRESS,
    CONTENT,
    DIGEST,
    HUGE,
    LARGEST,
    Service,
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "blobs")
    yield made
    made.close()


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


def test_a_body_that_the_disk_holds_up_is_not_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only waiting for the client counts; this one is faster than any, and its disk is not."""
    impatient = {"slow_seconds": 0.01, "slowest_body": 10**12}
    service = Service(tmp_path / "blobs", limits=impatient)
    real = FolderWriter.write

    def slowly(writer: FolderWriter, view: bytearray) -> None:
        time.sleep(0.02)
        real(writer, view)

    monkeypatch.setattr(uploads, "BUFFER", 100)
    monkeypatch.setattr(FolderWriter, "write", slowly)
    parts = [CONTENT[start : start + 100] for start in range(0, 1000, 100)]
    assert Client(*parts).ask(service.app, content_length="1000") == 201
    service.close()


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
