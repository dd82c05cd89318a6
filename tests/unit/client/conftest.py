"""A server that answers what a test tells it to, in order."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest


@dataclass
class Scripted:
    """The answers still to be given, and the requests that came."""

    url: str = ""
    answers: deque[tuple[int, dict[str, str], bytes] | None] = field(default_factory=deque)
    """Status, headers and body; None closes the connection without an answer."""
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, named, body))

    def headers(self, name: str) -> list[str | None]:
        return [headers.get(name.lower()) for _, _, headers in self.seen]


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    yield from _serve()


@pytest.fixture
def elsewhere() -> Iterator[Scripted]:
    """Another server, which must never see the token."""
    yield from _serve()


def _serve() -> Iterator[Scripted]:
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            named = {name.lower(): value for name, value in self.headers.items()}
            script.seen.append((self.command, self.path, named))
            answer = script.answers.popleft()
            if answer is None:
                self.close_connection = True
                return
            status, headers, body = answer
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        # The names that the base class looks for.
        do_GET = do_HEAD = do_PUT = do_POST = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield script
        server.shutdown()
        thread.join()
