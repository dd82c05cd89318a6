"""The HTTP server: uvicorn, with deadlines for silent clients and an end that drops nobody."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import ConfigurationError

DRAIN_SECONDS = 20
"""How long requests in progress may go on after a signal to stop."""

HEADER_SECONDS = 10.0
"""How long a client may take to send a request's head; uvicorn by itself waits for ever."""

KEEP_ALIVE_SECONDS = 30
"""How long a connection is kept between requests: longer than a worker's pause between heartbeats,
so that it does not connect anew for each."""

_WAITING = 2048
"""Connections that may wait to be accepted."""


def serve_app(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    on_ready: Callable[[int], None] | None = None,
    on_drain: Callable[[], None] | None = None,
    behind_proxy: bool = False,
    tls: tuple[Path, Path] | None = None,
) -> None:
    """Serve ``app`` until SIGTERM or SIGINT, let requests in progress finish, and return.

    Args:
        app: The application; its lifespan is run, and must succeed.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        on_ready: Told the port once requests are answered.
        on_drain: Told when no more connections are accepted, so that what would wait for long
            (a long poll, an event stream) can end by itself within ``DRAIN_SECONDS``.
        behind_proxy: Whether to believe X-Forwarded headers of a proxy on this machine.
        tls: Files of a certificate and its key.

    Raises:
        ConfigurationError: the address cannot be listened on, or the certificate not be used.
    """
    listener = _listen(host, port)
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,  # the process's own; uvicorn's loggers end up there
        access_log=False,  # the middleware's line has the request id, and no query
        server_header=False,
        proxy_headers=behind_proxy,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
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
        _Server(config, on_ready, on_drain).run([listener])


def _listen(host: str, port: int) -> socket.socket:
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
    return listener


class _Server(uvicorn.Server):
    """Uvicorn that says when it begins and ends, and returns when told to stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[int], None] | None,
        on_drain: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_drain = on_drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready and sockets:
            self._on_ready(sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._on_drain:
            self._on_drain()
        await super().shutdown(sockets)

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
    """HTTP/1.1 that hangs up on clients which connect, or begin a request, and then say nothing."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] as uvicorn's
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Uvicorn takes any byte for the end of a pause; an empty line is not yet a request.
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._stop_expecting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.timeout_keep_alive_handler)

    def _stop_expecting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
