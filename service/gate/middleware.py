"""What every request passes before a route sees it: the log around it, and the gate before it.

Plain ASGI, so that bodies stream through; whatever is refused here is refused before a byte of
the body has been read, and to a client that waits for `100 Continue` before one was sent.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gate.auth import Access, Doors
from service.gate.capacity import Capacity
from service.gate.doorkeeper import Admission, Doorkeeper, Refusal
from service.gate.throttle import Throttle
from service.gate.traffic import streams, traffic_of
from service.problems import kind_of_status, problem_response, unexpected
from service.settings import Limits, Settings
from service.telemetry import Metrics, request_id

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'self'"
    ),
}

CLIENT_LEFT = 499
"""Status in log and metrics of a request that was never answered because nobody waited for it."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?P<port>:[0-9]{1,5})?")

_log = structlog.get_logger(__name__)


def guard(
    app: FastAPI,
    settings: Settings,
    metrics: Metrics,
    access: Access,
    *,
    capacity: Capacity | None = None,
) -> None:
    """Put the gate before ``app``, and the log around both.

    Each of the routes must say for whom it is (`service.gate.auth.needs`): the service does not
    start otherwise.

    Args:
        app: What is guarded.
        settings: What it runs with.
        metrics: Where requests are counted.
        access: Knows the tokens.
        capacity: Says whether one more request can be answered; one of its own by default.
    """
    capacity = capacity or Capacity(settings.limits)
    throttle = Throttle(settings.limits.wrong_tokens, clock=time.monotonic)
    doorkeeper = Doorkeeper(access, Doors(app.routes), throttle)
    app.add_middleware(Gate, settings=settings, doorkeeper=doorkeeper, capacity=capacity)
    app.add_middleware(RequestLog, metrics=metrics)


class RequestLog:
    """Gives every request its id, its line in the log and its place in the metrics.

    Being outermost it also writes the security headers, and answers what no handler has caught:
    a failure is logged once, with its id, and the client gets a problem.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and record what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = request_id(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = identity
        answer = _Answer(send, identity)
        began = self._clock()
        with structlog.contextvars.bound_contextvars(request_id=identity):
            try:
                await self._answered(scope, receive, answer)
            finally:
                self._record(scope, answer.status or CLIENT_LEFT, self._clock() - began)

    async def _answered(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            return
        except Exception as error:
            response = await unexpected(Request(scope), error)
            if answer.status is not None:
                raise  # half an answer is out: only a broken connection tells the client
            await response(scope, receive, answer.send)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = _template(scope)
        self._metrics.observe(method=scope["method"], route=route, status=status, seconds=seconds)
        _log.info(
            "request",
            method=scope["method"],
            path=scope["path"],  # without the query, which may hold secrets
            route=route,
            status=status,
            milliseconds=round(seconds * 1e3, 1),
            client=(scope.get("client") or ("unknown",))[0],
            who=scope["state"].get("who"),
        )


@dataclass
class _Answer:
    """An answer on its way out: gets its headers, and remembers its status."""

    out: Send
    request_id: str
    status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            headers["X-Request-ID"] = self.request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            message = {**message, "headers": headers.raw}
        await self.out(message)


def _template(scope: Scope) -> str:
    """Name the route, without the values in its path: metrics must not grow with them."""
    # The route itself does not know the prefix that its router was included under.
    context = (scope.get("fastapi") or {}).get("effective_route_context")
    return (
        getattr(context, "path_format", None)
        or getattr(scope.get("route"), "path", None)
        or "unmatched"
    )


class Gate:
    """Refuses, by its head alone, a request that should not reach any route.

    In this order: a Host that is not ours (a page of another site whose name was pointed at this
    address, RFC 9110, section 15.5.20), a change ordered by another site's page, a missing or
    wrong token or one that does not allow this, a body too large to be read into memory, more at
    once than can be answered. Who was let in may go on for as long as they would be let in again.
    """

    def __init__(
        self, app: ASGIApp, *, settings: Settings, doorkeeper: Doorkeeper, capacity: Capacity
    ) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._capacity = capacity
        self._further_hosts = frozenset(map(_bracketed, settings.allowed_hosts))
        self._hosts = self._further_hosts | {
            "127.0.0.1", "localhost", "[::1]", _bracketed(settings.host)
        }  # fmt: skip
        self._limits = settings.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            self._doorkeeper.look()
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        decided = self._decided(scope, headers)
        if isinstance(decided, Refusal):
            response = problem_response(
                decided.kind, decided.detail,
                request_id=scope["state"]["request_id"],
                headers={**decided.headers, **_hanging_up(headers)},
            )  # fmt: skip
            await response(scope, receive, send)
            return
        scope["state"] |= {"who": decided.identity.who, "needs": decided.needs}
        visit = _Visit(self._doorkeeper, decided, receive, send)
        with self._capacity.taken(traffic_of(scope, headers)):
            if streams(scope["path"], headers):
                await self._app(scope, visit.receive, visit.send)
            else:
                await self._app(scope, _SmallBody(visit.receive, self._limits), visit.send)

    def _decided(self, scope: Scope, headers: Headers) -> Admission | Refusal:
        refusal = self._foreign_host(headers) or self._foreign_page(scope["method"], headers)
        answer = refusal or self._doorkeeper.answer(scope, headers)
        if isinstance(answer, Refusal):
            return answer
        return (
            self._too_large(scope["path"], headers)
            or self._capacity.refusal(traffic_of(scope, headers), scope["path"])
            or answer
        )

    def _foreign_host(self, headers: Headers) -> Refusal | None:
        given = headers.getlist("host")
        if len(given) == 1 and _host(given[0]) in self._hosts:
            return None
        return Refusal(
            kind_of_status(421),
            f"this service does not go by the name {given[0][:100]!r}; call it by its address, or "
            "list the name under allowed_hosts in its settings"
            if len(given) == 1
            else "the request must have exactly one Host header",
        )

    def _foreign_page(self, method: str, headers: Headers) -> Refusal | None:
        if method in SAFE_METHODS:
            return None
        foreign = [origin for origin in headers.getlist("origin") if not self._own(origin, headers)]
        if not foreign and "cross-site" not in headers.getlist("sec-fetch-site"):
            return None
        return Refusal(
            kind_of_status(403),
            "a page of another site asked for this change; programs leave out Origin and "
            "Sec-Fetch-Site, and pages of the service's own have its origin",
        )

    def _own(self, origin: str, headers: Headers) -> bool:
        scheme, _, authority = origin.lower().partition("://")
        if scheme not in {"http", "https"}:
            return False
        # A proxy may replace the Host by its own name for us, but not the browser's Origin.
        return authority == headers["host"].lower() or authority in self._further_hosts

    def _too_large(self, path: str, headers: Headers) -> Refusal | None:
        largest = self._limits.largest_json
        if streams(path, headers) or _length(headers) <= largest:
            return None
        return Refusal(kind_of_status(413), _too_much(largest))


class _Visit:
    """A request that was let in, for as long as whoever makes it would be let in again.

    A token that is revoked, or expires, ends uploads, downloads and event streams in the middle,
    and whoever waits for work does not get any.
    """

    def __init__(
        self, doorkeeper: Doorkeeper, admission: Admission, receive: Receive, send: Send
    ) -> None:
        self._doorkeeper = doorkeeper
        self._admission = admission
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        ended = self._doorkeeper.still(self._admission)
        if ended is not None:
            raise HTTPException(401, ended.detail, {**ended.headers, "Connection": "close"})
        return await self._receive()

    async def send(self, message: Message) -> None:
        # An answer in one piece was complete before the end; what is still being sent was not.
        if message.get("more_body") and self._doorkeeper.still(self._admission) is not None:
            raise ClientDisconnect
        await self._send(message)


class _SmallBody:
    """A body that is going to be read into memory: bounded in bytes and in time."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive = receive
        self._largest = limits.largest_json
        self._deadline = asyncio.get_running_loop().time() + limits.json_seconds
        self._taken = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:  # what follows is only the client's leaving, whenever that is
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408,
                "the body did not come in time; send it again, at once",
                {"Connection": "close"},
            ) from None
        self._taken += len(message.get("body", b""))
        if self._taken > self._largest:
            raise HTTPException(413, _too_much(self._largest), {"Connection": "close"})
        self._complete = not message.get("more_body", False)
        return message


def _host(authority: str) -> str | None:
    match = _AUTHORITY.fullmatch(authority.lower())
    return match["host"] if match else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _length(headers: Headers) -> int:
    """Return the announced length; what is no number is no length that anything could hold."""
    text = headers.get("content-length", "0")
    return int(text[:19]) if text.isdecimal() else 2**63


def _hanging_up(headers: Headers) -> Mapping[str, str]:
    """Close the connection where a body would follow, rather than read it to no end."""
    follows = _length(headers) > 0 or "transfer-encoding" in headers
    return {"Connection": "close"} if follows else {}


def _too_much(largest: int) -> str:
    return (
        f"the body is larger than the {largest:,} bytes that are read into memory here; upload "
        "large files to /v1/blobs and name them by digest"
    )
