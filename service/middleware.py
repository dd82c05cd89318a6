"""What every request passes before a route sees it: the log around it, and the gate before it.

Plain ASGI, so that bodies stream through; whatever is refused here is refused before a byte of
the body has been read, and to a client that waits for `100 Continue` before one was sent.
"""

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Kind, kind_of_status, problem_response, unexpected
from service.settings import Settings
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

BODY_SECONDS = 60.0
"""How long a body that is read into memory may take; the server itself waits for ever."""

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What an orchestrator must be able to ask without a token."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?P<port>:[0-9]{1,5})?")

_STREAMED = re.compile(r"/v1/(blobs|held-out-sets|uploads)(/.*)?")
"""Routes that read their bodies as they come and have limits of their own."""

_STREAMED_IF_RAW = re.compile(r"/v1/runs/[^/]+/(checkpoints|files)(/.*)?")
"""The same where the body is raw bytes; as JSON it is read into memory like any other."""

_log = structlog.get_logger(__name__)


def guard(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Put the gate before ``app``, and the log around both."""
    app.add_middleware(Gate, settings=settings)
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


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request does not get past the gate."""

    kind: Kind
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Gate:
    """Refuses, by its head alone, a request that should not reach any route.

    In this order: a Host that is not ours (a page of another site whose name was pointed at this
    address, RFC 9110, section 15.5.20), a change ordered by another site's page, a missing or
    wrong token, a body too large to be read into memory.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._further_hosts = frozenset(map(_bracketed, settings.allowed_hosts))
        self._hosts = self._further_hosts | {
            "127.0.0.1", "localhost", "[::1]", _bracketed(settings.host)
        }  # fmt: skip
        self._token = None if settings.token is None else _hash(settings.token)
        self._largest = settings.limits.largest_json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self.refusal(scope["method"], scope["path"], headers)
        if refusal is not None:
            response = problem_response(
                refusal.kind, refusal.detail,
                request_id=scope["state"]["request_id"],
                headers={**refusal.headers, **_hanging_up(headers)},
            )  # fmt: skip
            await response(scope, receive, send)
        elif _streams(scope["path"], headers):
            await self._app(scope, receive, send)
        else:
            await self._app(scope, _SmallBody(receive, self._largest), send)

    def refusal(self, method: str, path: str, headers: Headers) -> Refusal | None:
        """Return why the request is refused; None where nothing speaks against it."""
        return (
            self._foreign_host(headers)
            or self._foreign_page(method, headers)
            or self._no_token(path, headers)
            or self._too_large(path, headers)
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

    def _no_token(self, path: str, headers: Headers) -> Refusal | None:
        if self._token is None or path in OPEN_PATHS:
            return None
        given = headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() == "bearer" and hmac.compare_digest(_hash(token.strip()), self._token):
            return None
        challenge = 'Bearer realm="ckptmerge"' + (', error="invalid_token"' if given else "")
        return Refusal(
            kind_of_status(401),
            "the token is not this service's; use the one it was started with"
            if given
            else "this service asks for a token: send `Authorization: Bearer …`, or set "
            "CKPTMERGE_TOKEN where ckptmerge runs",
            {"WWW-Authenticate": challenge},
        )

    def _too_large(self, path: str, headers: Headers) -> Refusal | None:
        if _streams(path, headers) or _length(headers) <= self._largest:
            return None
        return Refusal(kind_of_status(413), _too_much(self._largest))


class _SmallBody:
    """A body that is going to be read into memory: bounded in bytes and in time."""

    def __init__(self, receive: Receive, largest: int) -> None:
        self._receive = receive
        self._largest = largest
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
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


def _hash(token: str) -> bytes:
    """Give tokens one length, so that comparing them takes one time."""
    return hashlib.sha256(token.encode("latin-1", "replace")).digest()


def _streams(path: str, headers: Headers) -> bool:
    if _STREAMED.fullmatch(path):
        return True
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/octet-stream" and bool(_STREAMED_IF_RAW.fullmatch(path))


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
