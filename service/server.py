"""The HTTP server: uvicorn, with deadlines for silent clients and an end that drops nobody."""

import asyncio
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.gate.capacity import ALWAYS, COME_AGAIN
from service.problems import OVERLOADED, Kind, kind_of_status, problem_response
from service.settings import ConfigurationError, Deadlines
from service.telemetry import request_id

DRAIN_SECONDS = 20
"""How long requests in progress may go on after a signal to stop."""

_ENOUGH_FILES = 65536
"""Open files to ask for where the system names no bound."""

_WAITING = 2048
"""Connections that may wait to be accepted."""


async def _at_once() -> None:
    """Wait for nothing."""


def serve_app(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    on_ready: Callable[[int], None] | None = None,
    on_drain: Callable[[], None] | None = None,
    finished: Callable[[], Awaitable[None]] = _at_once,
    behind_proxy: bool = False,
    tls: tuple[Path, Path] | None = None,
    deadlines: Deadlines,
    connections: int = 2048,
) -> None:
    """Serve ``app`` until SIGTERM or SIGINT, let requests in progress finish, and return.

    A second signal ends the process at once.

    Args:
        app: The application; its lifespan is run, and must succeed.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        on_ready: Told the port once requests are answered.
        on_drain: Told of the signal, so that what would wait for long (a long poll, an event
            stream) can end by itself within ``DRAIN_SECONDS``.
        finished: Returns when nothing goes on any more that takes long; until then, whoever comes
            is told by ``app`` what is the matter, rather than find nobody.
        behind_proxy: Whether to believe X-Forwarded headers of a proxy on this machine.
        tls: Files of a certificate and its key.
        deadlines: How long clients are waited for.
        connections: How many there may be, idle ones too; at most half of the files that the
            process may have open, for the other half is the service's.

    Raises:
        ConfigurationError: the address cannot be listened on, or the certificate not be used.
    """
    connections = min(connections, _most_files() // 2)
    listener = _listen(host, port, deadlines)
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        http=_protocol(deadlines, connections),
        ws="none",
        lifespan="on",
        log_config=None,  # the process's own; uvicorn's loggers end up there
        access_log=False,  # the middleware's line has the request id, and no query
        server_header=False,
        proxy_headers=behind_proxy,
        timeout_keep_alive=deadlines.keep_alive_seconds,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    with listener:
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(
                f"cannot use the certificate {certificate} with the key {key}: {error}"
            ) from error
        _Server(config, on_ready, on_drain, finished).run([listener])


def _most_files() -> int:
    """Return how many files the process may have open, after asking for as many as it can get."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_FILES if most == resource.RLIM_INFINITY else most
    with suppress(ValueError, OSError):  # no system says what it refuses before it is asked
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _listen(host: str, port: int, deadlines: Deadlines) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_WAITING)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another port (0 takes "
            "any that is free) or an address of this machine"
        ) from error
    # Else the second half of an answer waits 40 ms for a delayed acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Linux ends a connection whose other side acknowledges nothing, or has room for nothing, for
    # so long (RFC 5482): also one that we have closed, with bytes left that nobody takes.
    if sys.platform == "linux":
        milliseconds = int(deadlines.stalled_seconds * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return listener


class _Server(uvicorn.Server):
    """Uvicorn that says when it begins and ends, and returns when told to stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[int], None] | None,
        on_drain: Callable[[], None] | None,
        finished: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_drain = on_drain
        self._finished = finished

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready and sockets:
            self._on_ready(sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + DRAIN_SECONDS
        if self._on_drain:
            self._on_drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._finished(), DRAIN_SECONDS)
        self.config.timeout_graceful_shutdown = max(round(end - clock()), 1)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at the second signal, end: what was acknowledged is safe."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn's own raises the signal again at the end, which ends the process before whoever
        # called serve_app has stopped its workers and closed its database.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        stop = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in stop}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Protocol(HttpToolsProtocol):
    """HTTP/1.1 that hangs up on clients which connect, or begin a request, and then say nothing.

    What uvicorn refuses by itself, it refuses with a problem, as everything else does.
    """

    head_seconds: float
    """Set by `_protocol`, as ``most`` is: uvicorn makes the objects of this class."""
    most: int
    """Connections that there may be."""
    _deadline: asyncio.TimerHandle | None = None
    _begun = False
    """Whether a request's head has begun to come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] as uvicorn's
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Uvicorn takes any byte for the end of a pause; an empty line is not yet a request.
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True

    def on_headers_complete(self) -> None:
        self._begun = False
        self._stop_expecting()
        if len(self.connections) > self.most and self.url.decode("latin-1") not in ALWAYS:
            self.app = _sent_away(self.most)
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(kind_of_status(400), f"{msg} Only HTTP/1.1 is spoken here")

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self.head_seconds, self._hang_up)

    def _stop_expecting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        if self._begun:
            said = f"no whole head of a request came in {self.head_seconds:g} s; send it at once"
            self._refuse(kind_of_status(408), said)
        else:
            self.timeout_keep_alive_handler()

    def _refuse(self, kind: Kind, detail: str) -> None:
        """Answer a request that is none, and close the connection (RFC 9112, section 9.6)."""
        if self.transport.is_closing():
            return
        answer = problem_response(
            kind, detail, request_id=request_id(None), headers={"Connection": "close"}
        )
        fields = b"".join(b"%s: %s\r\n" % field for field in answer.raw_headers)
        status = f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\n".encode("ascii")
        self.transport.write(status + fields + b"\r\n" + bytes(answer.body))
        self.transport.close()


def _sent_away(most: int) -> ASGIApp:
    """Return what answers whoever comes on one connection too many, and closes it."""
    return problem_response(
        OVERLOADED,
        f"{most} connections are open, which is as many as there may be; try again in "
        f"{COME_AGAIN} s",
        request_id=request_id(None),
        headers={"Retry-After": str(COME_AGAIN), "Connection": "close"},
    )


def _protocol(deadlines: Deadlines, connections: int) -> type[_Protocol]:
    """Return the protocol with its bounds: uvicorn passes nothing on to it."""

    class Protocol(_Protocol):
        head_seconds = deadlines.head_seconds
        most = connections

    return Protocol
