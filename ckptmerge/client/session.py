"""Session: requests to one service, repeated where that can help, refusals as errors."""

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from random import Random, SystemRandom
from types import TracebackType
from typing import Any, Literal, Self

import httpx2
from pydantic import BaseModel

from ckptmerge.client.address import OWN_MACHINE, bearer_token, same_origin, service_url
from ckptmerge.client.problem import error_of, retry_after
from ckptmerge.client.trust import CA, Trusted, believing
from ckptmerge.errors import ServiceError

Method = Literal["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]

_BUSY = frozenset({429, 502, 503, 504})
"""Answers that pass: too many requests, and a service that restarts, alone or behind a proxy."""

_CONNECT = 10.0
"""Seconds for a connection to stand: a machine that is there answers long before."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to try before giving up."""

    attempts: int = 5
    """Tries of one request, and tries in a row of a transfer that brings nothing new."""
    first: float = 0.25
    """Seconds of the first pause; each next one is twice as long."""
    longest: float = 30.0
    """Seconds of the longest pause; a service that asks for a longer one is not waited for."""

    def pause(self, tried: int, chance: float) -> float:
        """Return the seconds to wait after ``tried`` tries; ``chance`` is from 0 to 1.

        The pauses of many clients that were cut off together spread out (full jitter, but never
        less than half: https://aws.amazon.com/builders-library).
        """
        return min(self.longest, self.first * 2 ** (tried - 1)) * (1 + chance) / 2


class BrokenOffError(ServiceError):
    """An answer broke off in the middle; what had come until then is good."""


class Session:
    """Speaks to one service; a context manager, safe from several threads.

    Every request may reach the service twice, for an answer can be lost on its way: a POST carries
    an ``Idempotency-Key`` that stays the same, the other methods are idempotent as they are used
    here. Nothing is sent before the first request, so a service that is down is no error yet.

    Args:
        url: Where the service is, such as ``http://127.0.0.1:8117``; a path in it is kept.
        token: Bearer token; sent to this address only, also where an answer points elsewhere.
        ca: PEM file of the authorities to believe where the address is https; by default the one
            that ``CKPTMERGE_CA`` names, or else the system's.
        timeout: Seconds of silence after which a connection counts as dead.
        patience: How often to try.
        sleep: Waits so many seconds.
        random: Source of the pauses' jitter and of idempotency keys.

    Raises:
        InvalidInputError: the address or the token cannot be one, or the authorities not be read.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Trusted | None = None,
        timeout: float = 60.0,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        random: Random | None = None,
    ) -> None:
        self._token = bearer_token(token)
        self.patience = patience or Patience()
        self._sleep = sleep
        self._random = random or SystemRandom()
        self._client = httpx2.Client(
            base_url=service_url(url),
            headers={"User-Agent": f"ckptmerge/{version('ckptmerge')}"},
            timeout=_timeouts(timeout),
            verify=believing(ca),
            # A proxy from the environment cannot reach this machine's own loopback.
            mounts={f"all://{host}": None for host in OWN_MACHINE},
        )
        self.url = str(self._client.base_url).rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def json(
        self,
        method: Method,
        path: str,
        body: BaseModel | Mapping[str, object] | None = None,
        *,
        params: Mapping[str, str | int] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send JSON and return the JSON that comes back; None where nothing does (204).

        Raises:
            ServiceError: the service refuses, stays busy, or cannot be reached.
        """
        content = body.model_dump(mode="json") if isinstance(body, BaseModel) else body
        given: dict[str, Any] = {"params": params, "headers": {"Accept": "application/json"}}
        if content is not None:
            given["json"] = content
        if timeout is not None:
            given["timeout"] = _timeouts(timeout)
        response = self._send(method, path, lambda: given)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise ServiceError(
                f"{method} {response.request.url} was answered with something that is not JSON; "
                "is this the address of a ckptmerge service?",
                status=response.status_code,
            ) from error

    def exists(self, path: str) -> bool:
        """Ask whether there is something at ``path``.

        Raises:
            ServiceError: the service refuses, stays busy, or cannot be reached.
        """
        try:
            self._send("HEAD", path, dict)
        except ServiceError as error:
            if error.status == 404:
                return False
            raise
        return True

    def put(self, path: str, body: Callable[[], Iterable[bytes]], *, size: int) -> None:
        """Send ``size`` bytes as they come; ``body`` is called again for another try.

        Raises:
            ServiceError: the service refuses, stays busy, or cannot be reached.
        """
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._send("PUT", path, lambda: {"headers": headers, "content": body()})

    def tell(
        self,
        method: Method,
        path: str,
        headers: Mapping[str, str],
        *,
        body: Iterable[bytes] | None = None,
    ) -> Mapping[str, str]:
        """Send a request whose answer is in its headers, and return those.

        Args:
            method: Of the request.
            path: Where to.
            headers: Of the request.
            body: Its bytes, as they come; they are sent once, so it is tried once.

        Raises:
            ServiceError: the service refuses, stays busy, or cannot be reached.
        """
        content = {"headers": headers} if body is None else {"headers": headers, "content": body}
        return self._send(method, path, lambda: content, once=body is not None).headers

    @contextmanager
    def get(self, path: str, *, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """Open an answer whose body is read while it comes, unchanged by any encoding.

        Raises:
            BrokenOffError: the connection was lost while the body was being read.
            ServiceError: the service refuses, stays busy, or cannot be reached.
        """
        headers = {"Accept-Encoding": "identity", **headers}
        response = self._send("GET", path, lambda: {"headers": headers}, stream=True)
        try:
            yield response
        except httpx2.TransportError as error:
            raise BrokenOffError(self._lost(error)) from error
        finally:
            response.close()

    def pause(self, tried: int) -> None:
        """Wait before the next try of something that was tried ``tried`` times."""
        self._sleep(self.patience.pause(tried, self._random.random()))

    def _send(
        self, method: Method, path: str, content: Callable[[], dict[str, Any]], *,
        stream: bool = False, once: bool = False,
    ) -> httpx2.Response:  # fmt: skip
        """Send a request until it is answered; ``content`` makes its body anew for each try."""
        key = f"{self._random.getrandbits(128):032x}"
        tried = 0
        while True:
            tried += 1
            request = self._request(method, path, content(), key)
            try:
                return self._answer(request, stream=stream)
            except _PassingError as error:
                longest, asked = self.patience.longest, error.asked or 0.0
                if once or tried >= self.patience.attempts or asked > longest:
                    raise error.failure from error.__cause__
            self._sleep(max(asked, self.patience.pause(tried, self._random.random())))

    def _request(
        self, method: Method, path: str, content: dict[str, Any], key: str
    ) -> httpx2.Request:
        try:
            request = self._client.build_request(method, path, **content)
        except httpx2.InvalidURL as error:
            raise ServiceError(f"{path!r} cannot be asked of {self.url}: {error}") from error
        if method == "POST":
            request.headers["Idempotency-Key"] = key
        if self._token is not None and same_origin(request.url, self._client.base_url):
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _answer(self, request: httpx2.Request, *, stream: bool) -> httpx2.Response:
        """Send once, and read the answer unless a success is to be streamed.

        Raises:
            _PassingError: there was no answer, or one that another try may change.
            ServiceError: the answer is a refusal.
        """
        try:
            # Redirects drop the token where they lead to another origin; a body is not sent twice.
            follow = request.method in {"GET", "HEAD"}
            response = self._client.send(request, stream=True, follow_redirects=follow)
            if stream and response.is_success:
                return response
            with closing(response):
                response.read()
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol) as error:
            raise ServiceError(self._lost(error)) from error
        except httpx2.TransportError as error:
            failure = ServiceError(self._lost(error))
            if _distrust(error) is not None:  # nor will it be trusted the next time
                raise failure from error
            raise _PassingError(failure, None) from error
        except httpx2.RequestError as error:
            raise ServiceError(self._lost(error)) from error
        if response.is_success:
            return response
        if response.status_code in _BUSY:
            raise _PassingError(error_of(response), retry_after(response))
        raise error_of(response)

    def _lost(self, error: httpx2.RequestError) -> str:
        distrust = _distrust(error)
        if distrust is not None:
            return (
                f"the certificate that {self.url} shows is not trusted "
                f"({distrust.verify_message.rstrip('.')}); if an authority of your own has signed "
                f"it, name its file as {CA}, and call the service by a name that the certificate "
                "holds"
            )
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return (
                f"cannot reach a service at {self.url} ({reason}); "
                "start one there (ckptmerge serve), or give its address"
            )
        asked = "a request"
        with suppress(RuntimeError):
            asked = f"{error.request.method} {error.request.url}"
        return f"{asked} came to no end ({reason}); try again, the log of the service may say more"


class _PassingError(Exception):
    """One try failed in a way that another may not; never leaves this module."""

    def __init__(self, failure: ServiceError, asked: float | None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.asked = asked
        """Seconds the service asks to be left alone."""


def _distrust(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return why a server's certificate was refused, where an error comes from that."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def _timeouts(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=min(seconds, _CONNECT))
