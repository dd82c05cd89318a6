"""Clients that say nothing, say it slowly, or do not listen: each is let go, and nobody waits."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ckptmerge.domain.digest import Digest
from service.settings import Deadlines
from tests.e2e.running import RunningService, wait_for

CONTENT = bytes(5000)

LARGE = bytes(24 * 2**20)
"""More than the buffers of both ends of a connection hold."""

DEADLINES = {
    "HEAD_SECONDS": "1",
    "KEEP_ALIVE_SECONDS": "1",
    "JSON_SECONDS": "1",
    "SILENCE_SECONDS": "1",
    "SLOWEST_BODY": "1000",
    "SLOW_SECONDS": "1",
    "STALLED_SECONDS": "2",
}

PATIENCE = 20.0
"""Seconds within which this ends on any machine; without a deadline it would never."""

AT_ONCE = 200

PUT = "PUT /v1/blobs/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"
HEAD = PUT.format(Digest.of_bytes(b"what never comes")).encode()
JSON = (
    b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
    b"Content-Type: application/json\r\n\r\n"
)
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_the_deadlines_are_those_that_are_promised() -> None:
    assert Deadlines().model_dump() == {
        "head_seconds": 10, "keep_alive_seconds": 30, "json_seconds": 60, "silence_seconds": 30,
        "slowest_body": 65_536, "slow_seconds": 30, "stalled_seconds": 120,
    }  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("deadlines")
    held_out = folder / "held-out.jsonl"
    lines = (json.dumps({"text": f"document {number}"}) for number in range(200))
    held_out.write_text("\n".join(lines))
    environ = {f"CKPTMERGE_{name}": value for name, value in DEADLINES.items()}
    with RunningService(folder, held_out, workers=0, environ=environ) as running:
        yield running


def connected(service: RunningService) -> socket.socket:
    port = int(service.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def heard(line: socket.socket) -> bytes:
    """Return all that comes until the service hangs up."""
    said = b""
    try:
        while block := line.recv(2**16):
            said += block
    except ConnectionResetError:
        pass  # it had closed while more was on its way to it
    return said


def dribbling(line: socket.socket, pause: float, block: bytes = b"x") -> threading.Thread:
    """Send a little again and again until the service hangs up."""

    def dribble() -> None:
        try:
            while True:
                line.sendall(block)
                time.sleep(pause)
        except OSError:
            pass

    thread = threading.Thread(target=dribble, daemon=True)
    thread.start()
    return thread


def problem(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("said", [b"", b"\r\n"], ids=["nothing", "an empty line"])
def test_a_connection_without_a_request_is_closed(service: RunningService, said: bytes) -> None:
    with connected(service) as line:
        line.sendall(said)
        assert heard(line) == b""


@pytest.mark.parametrize("pause", [None, 0.1], ids=["silent", "dribbling"])
def test_a_head_that_does_not_end_is_refused(service: RunningService, pause: float | None) -> None:
    with connected(service) as line:
        line.sendall(WHOLE[:-2])
        if pause is not None:
            line.sendall(b"X-Long: ")
            dribbling(line, pause)
        status, told = problem(heard(line))
    assert (status, told["type"]) == (408, "/problems/request-timeout")
    assert "1 s" in told["detail"]


def test_a_connection_that_was_used_is_closed_when_no_more_comes(service: RunningService) -> None:
    with connected(service) as line:
        line.sendall(WHOLE)
        answer = heard(line)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("head", [HEAD, JSON], ids=["stored", "read into memory"])
@pytest.mark.parametrize("pause", [None, 0.1], ids=["silent", "dribbling"])
def test_a_body_that_does_not_come_is_refused(
    service: RunningService, head: bytes, pause: float | None
) -> None:
    with connected(service) as line:
        line.sendall(head)
        if pause is not None:
            dribbling(line, pause)
        status, told = problem(heard(line))
    assert (status, told["type"]) == (408, "/problems/request-timeout")
    assert not list((service.folder / "data" / "blobs").glob(".incoming-*/*"))


def test_a_body_that_is_slow_enough_is_taken(service: RunningService) -> None:
    """Five times as fast as it must be, and longer than any deadline."""
    with connected(service) as line:
        line.sendall(PUT.format(Digest.of_bytes(CONTENT)).encode())
        for _ in range(10):
            time.sleep(0.2)
            line.sendall(bytes(500))
        assert line.recv(2**16).startswith(b"HTTP/1.1 201 ")


def test_what_is_no_request_is_refused_with_a_problem(service: RunningService) -> None:
    with connected(service) as line:
        line.sendall(b"hello\r\n\r\n")
        status, told = problem(heard(line))
    assert (status, told["status"]) == (400, 400)


def test_a_client_that_takes_nothing_of_its_answer_is_let_go(service: RunningService) -> None:
    digest = Digest.of_bytes(LARGE)
    httpx2.put(f"{service.url}/v1/blobs/{digest}", content=LARGE).raise_for_status()
    (process,) = service.processes("serve --data")

    def held() -> bool:
        files = (Path(file).resolve() for file in Path(f"/proc/{process}/fd").iterdir())
        return any(digest.hex == file.name for file in files)

    with connected(service) as line:
        line.sendall(f"GET /v1/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_for(held, PATIENCE)
        wait_for(lambda: not held(), PATIENCE)
        assert len(heard(line)) < len(LARGE)


def test_a_client_that_is_slow_to_take_its_answer_gets_all_of_it(service: RunningService) -> None:
    digest = Digest.of_bytes(LARGE)
    httpx2.put(f"{service.url}/v1/blobs/{digest}", content=LARGE).raise_for_status()
    with connected(service) as line:
        line.sendall(f"GET /v1/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        taken = 0
        for _ in range(12):  # longer than the deadline, in all
            time.sleep(0.25)
            taken += len(line.recv(2**19))
        assert taken + len(heard(line)) > len(LARGE)


def test_two_hundred_slow_clients_are_in_nobodys_way(service: RunningService) -> None:
    beginnings = (b"", WHOLE[:-2], HEAD, JSON + b"{")
    with ExitStack() as lines:
        slow = [lines.enter_context(connected(service)) for _ in range(AT_ONCE)]
        for number, line in enumerate(slow):
            line.sendall(beginnings[number % len(beginnings)])
        for _ in range(20):
            assert httpx2.get(f"{service.url}/v1/runs", timeout=PATIENCE).status_code == 200
        assert all(heard(line).partition(b" ")[2][:3] in {b"", b"408"} for line in slow)
