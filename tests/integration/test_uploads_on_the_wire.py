"""Uploads in parts over a real connection: how a head is answered, and what a reset leaves."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.upload_service import UploadService, appending
from tests.integration.whole_service import serving

CONTENT = bytes(number % 251 for number in range(1000))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UploadService]:
    made = UploadService(tmp_path / "blobs")
    yield made
    made.close()


def test_a_refused_append_is_told_so_before_it_sends_its_body(service) -> None:
    address = service.create(CONTENT)
    with serving(service.app) as url, socket.create_connection(_place(url), 5) as line:
        head = {"Host": "127.0.0.1", "Content-Length": "1000", "Expect": "100-continue"}
        said = "".join(f"{n}: {v}\r\n" for n, v in {**head, **appending(7)}.items())
        line.sendall(f"PATCH {address} HTTP/1.1\r\n{said}\r\n".encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 409")


def test_bytes_that_reached_a_real_server_before_a_reset_are_kept(service) -> None:
    address = service.create(CONTENT)
    with serving(service.app) as url:
        with socket.create_connection(_place(url), 5) as line:
            head = {"Host": "127.0.0.1", "Content-Length": "1000"}
            said = "".join(f"{n}: {v}\r\n" for n, v in {**head, **appending(0)}.items())
            line.sendall(f"PATCH {address} HTTP/1.1\r\n{said}\r\n".encode() + CONTENT[:500])
            time.sleep(0.2)
        deadline = time.monotonic() + 5
        while not service.uploads()[0].upload.offset and time.monotonic() < deadline:
            time.sleep(0.02)
    assert service.uploads()[0].upload.offset == 500


def _place(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rpartition(":")[2])
