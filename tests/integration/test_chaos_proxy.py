"""The line on which things go wrong: they go wrong as often as it says, and for a seed the same."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
import pytest

from tests.torture.chaos_proxy import CutLine, LossyLine

SIZE = 2**20


@dataclass
class Server:
    """Says what it was told, and a million bytes to who asks for them."""

    url: str = ""
    told: list[bytes] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            made.told.append(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(b"done")

        def do_GET(self) -> None:
            self._answer(bytes(SIZE))

        def _answer(self, content: bytes) -> None:
            try:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with _listening(Handler) as made.url:
        yield made


@contextmanager
def _listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.handle_error = lambda *_: None  # type: ignore[method-assign] a cut is no error
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def fetched(url: str, times: int) -> list[int]:
    """Ask so often; return how many bytes came each time."""
    came = []
    with httpx2.Client() as client:
        for _ in range(times):
            count = 0
            try:
                with client.stream("GET", url) as answer:
                    for piece in answer.iter_raw():
                        count += len(piece)
            except httpx2.TransportError:
                pass
            came.append(count)
    return came


def told(line: LossyLine, times: int) -> list[bool]:
    """Tell something so often; return which were answered."""
    answered = []
    with httpx2.Client() as client:
        for number in range(times):
            try:
                answered.append(client.post(line.url, content=b"%d" % number).text == "done")
            except httpx2.TransportError:
                answered.append(False)
    return answered


def test_as_many_connections_are_cut_as_were_asked_for(server: Server) -> None:
    with CutLine(server.url, seed=1, cuts=3, after=(SIZE // 4, SIZE // 2)) as line:
        came = fetched(line.url, 5)
        assert line.cuts == 3
    assert all(count <= SIZE // 2 for count in came[:3])
    assert came[3:] == [SIZE, SIZE]


def test_a_line_without_cuts_carries_everything_and_counts_it(server: Server) -> None:
    with CutLine(server.url, seed=1, delay=0.01) as line:
        assert fetched(line.url, 2) == [SIZE, SIZE]
        assert (line.cuts, line.down > 2 * SIZE, 0 < line.up < 2000) == (0, True, True)


def test_a_slow_line_takes_its_time(server: Server) -> None:
    with CutLine(server.url, seed=1, rate=4 * SIZE) as line:
        answer = httpx2.get(line.url)
    assert answer.elapsed.total_seconds() > 0.2


def test_a_lost_answer_is_to_a_request_that_was_carried_out(server: Server) -> None:
    with LossyLine(server.url, seed=1, lost=0.3) as line:
        answered = told(line, 40)
        assert line.lost == answered.count(False) > 0
    assert server.told == [b"%d" % number for number in range(40)]


def test_a_request_that_comes_twice_is_answered_once(server: Server) -> None:
    with LossyLine(server.url, seed=1, twice=0.3) as line:
        assert all(told(line, 40))
        assert line.twice == len(server.told) - 40 > 0


def test_a_request_that_is_lost_is_never_heard(server: Server) -> None:
    with LossyLine(server.url, seed=1, unsent=0.3) as line:
        answered = told(line, 40)
        assert line.unsent == answered.count(False) == 40 - len(server.told) > 0


def test_some_requests_can_be_spared(server: Server) -> None:
    with LossyLine(server.url, seed=1, lost=1.0, only=lambda _, path: path == "/bad") as line:
        assert all(told(line, 5))
        with pytest.raises(httpx2.TransportError):
            httpx2.post(f"{line.url}/bad", content=b"x")


def test_a_body_in_chunks_is_carried_as_well(server: Server) -> None:
    """The standard library's server does not read chunks: that it hears of none is enough."""
    with LossyLine(server.url, seed=1, unsent=1.0) as line:
        with pytest.raises(httpx2.TransportError):
            httpx2.post(line.url, content=iter([b"one", b"two"]))
        assert line.unsent == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_loses_the_same(server: Server, seed: int) -> None:
    patterns = []
    for _ in range(2):
        with LossyLine(server.url, seed=seed, lost=0.5) as line:
            patterns.append(told(line, 30))
    assert patterns[0] == patterns[1]
