"""The server as a process: one a data folder, and a signal that drops nobody."""

import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from service.data_folder import DataFolder

SERVER = """
    import asyncio, sys
    from pathlib import Path
    from fastapi import FastAPI
    from service.gate.auth import Access, public
    from service.data_folder import DataFolder
    from service.gate.middleware import guard
    from service import server
    from service.settings import ConfigurationError, Deadlines, Settings
    from service.telemetry import Metrics, configure_logging

    configure_logging(sys.stderr, readable=False)
    app, released = FastAPI(openapi_url=None), asyncio.Event()

    @app.get("/slow", dependencies=[public()])
    async def slow() -> str:
        print("begun", flush=True)
        await released.wait()
        await asyncio.sleep(0.5)  # longer than uvicorn gives to those it does not wait for
        return "done"

    @app.get("/stuck", dependencies=[public()])
    async def stuck() -> None:
        print("stuck", flush=True)
        await asyncio.Event().wait()

    guard(app, Settings(), Metrics(), Access(None, now=lambda: 0.0))
    try:
        with DataFolder(Path(sys.argv[1])):
            server.serve_app(
                app, host="127.0.0.1", port=0, deadlines=Deadlines(head_seconds=0.5),
                on_ready=lambda port: print(port, flush=True), connections=3,
                on_drain=lambda: (print("draining", flush=True), released.set()),
            )
            print("drained", flush=True)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(78)
"""


@contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    ) as server:  # fmt: skip
        try:
            yield server
        finally:
            server.kill()  # a failed test must not wait for what it has not stopped


def said(server: subprocess.Popen[str]) -> str:
    assert server.stdout
    return server.stdout.readline().strip()


def assert_hung_up_on(url: str, request: bytes, after_its_answer: bytes = b"") -> None:
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        if after_its_answer:
            assert client.recv(4096).startswith(b"HTTP/1.1 404")
            client.sendall(after_its_answer)
        while client.recv(4096):
            pass


def test_one_server_a_folder_and_a_signal_lets_requests_finish(tmp_path: Path) -> None:
    with started(tmp_path / "data") as server:
        url = f"http://127.0.0.1:{said(server)}"
        with started(tmp_path / "data") as second:
            _, refusal = second.communicate(timeout=30)
            assert second.returncode == 78
        assert f"already served by process {server.pid}" in refusal

        assert_hung_up_on(url, b"")
        assert_hung_up_on(url, b"GET / HT")
        assert_hung_up_on(url, b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n")

        answers: list[httpx2.Response] = []
        asking = threading.Thread(target=lambda: answers.append(httpx2.get(f"{url}/slow")))
        asking.start()
        assert said(server) == "begun"
        server.send_signal(signal.SIGTERM)
        assert said(server) == "draining"
        asking.join(timeout=30)
        assert [(answer.status_code, answer.json()) for answer in answers] == [(200, "done")]
        assert "server" not in answers[0].headers
        assert said(server) == "drained"
        assert server.wait(timeout=30) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(url)
    with DataFolder(tmp_path / "data"):
        pass  # and the folder is free again


def test_a_second_signal_ends_the_server_whatever_goes_on(tmp_path: Path) -> None:
    with started(tmp_path / "data") as server:
        port = int(said(server))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert said(server) == "stuck"
            server.send_signal(signal.SIGTERM)
            assert said(server) == "draining"
            server.send_signal(signal.SIGTERM)
            # It would have waited for the request for much longer.
            assert server.wait(timeout=10) == -signal.SIGTERM


def test_one_connection_too_many_is_told_to_come_again(tmp_path: Path) -> None:
    with started(tmp_path / "data") as server, ExitStack() as stack:
        port = int(said(server))
        lines = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            for _ in range(3)
        ]
        for line in lines:
            line.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert line.recv(4096).startswith(b"HTTP/1.1 404")
        url = f"http://127.0.0.1:{port}"
        refused = httpx2.get(f"{url}/x")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert refused.json()["type"] == "/problems/overloaded"
        assert refused.headers["connection"] == "close"
        assert httpx2.get(f"{url}/healthz").status_code == 404  # asked, though there is none here
        lines.pop().close()
        assert eventually(lambda: httpx2.get(f"{url}/x").status_code == 404)


def eventually(what: Callable[[], bool]) -> bool:
    """Say whether something comes to be so; the server hears of an end a little later."""
    return any(what() or time.sleep(0.05) for _ in range(100))
