"""Blobs over real connections: what is answered before a body, and what a cut one leaves behind."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from ckptmerge.storage.blobs import put, read
from tests.integration.blob_service import (
    ADDRESS,
    CONTENT,
    DIGEST,
    LARGEST,
    TOKEN,
    Service,
    opened,
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "blobs")
    yield made
    made.close()


@contextmanager
def on_the_wire(service: Service) -> Iterator[Callable[[], socket.socket]]:
    """Serve on loopback until the end of the block; connections come from what is given."""
    config = uvicorn.Config(service.app, log_config=None, lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield lambda: socket.create_connection(listener.getsockname(), timeout=10)
        server.should_exit = True
        thread.join()


def head(method: str = "PUT", address: str = ADDRESS, **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    text = "\r\n".join([f"{method} {address} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""])
    return text.encode("latin-1")


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


@pytest.mark.parametrize("expect", [{}, {"Expect": "100-continue"}], ids=["unasked", "asked"])
@pytest.mark.parametrize(
    ("status", "length", "token"),
    [(401, 1000, "wrong"), (413, LARGEST + 1, TOKEN), (200, 1000, TOKEN)],
)
def test_the_answer_comes_before_the_body(
    tmp_path: Path, status: int, length: int, token: str, expect: dict[str, str]
) -> None:
    """No byte of the body is ever sent here, so whoever waited for one would not answer."""
    service = Service(tmp_path, token=TOKEN)
    if status == 200:
        put(service.blobs, CONTENT)
    with on_the_wire(service) as connect, connect() as line:
        line.sendall(head(Content_Length=str(length), Authorization=f"Bearer {token}", **expect))
        assert line.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode())
    assert service.incoming() == []
    service.close()


def test_a_body_is_asked_for_once_it_is_wanted(service: Service) -> None:
    with on_the_wire(service) as connect, connect() as line:
        line.sendall(head(Content_Length="1000", Expect="100-continue"))
        assert line.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(CONTENT)
        assert line.recv(65_536).startswith(b"HTTP/1.1 201 ")
    assert read(service.blobs, DIGEST) == CONTENT


@pytest.mark.parametrize("linger", [0, 1], ids=["closed", "reset"])
def test_an_upload_that_is_cut_leaves_no_partial_file(service: Service, linger: int) -> None:
    with on_the_wire(service) as connect:
        with connect() as line:
            line.sendall(head(Content_Length="3000000") + bytes(2_000_000))
            assert eventually(lambda: any(file.stat().st_size for file in service.incoming()))
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", linger, 0))
        assert eventually(lambda: not service.incoming())
    assert service.holds_nothing()


def test_a_download_that_is_cut_closes_the_blob(service: Service) -> None:
    digest = put(service.blobs, bytes(32 * 2**20))
    place = service.blobs.path(digest)

    def is_open() -> bool:
        return any(os.path.realpath(f"/proc/self/fd/{fd}") == str(place) for fd in opened())

    with on_the_wire(service) as connect:
        with connect() as line:
            line.sendall(head("GET", f"/v1/blobs/{digest}"))
            assert line.recv(100).startswith(b"HTTP/1.1 200 ")
            assert eventually(is_open)
        assert eventually(lambda: not is_open())
