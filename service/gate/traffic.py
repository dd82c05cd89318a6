"""What kind of request comes, told by its head: it brings a file, takes one, waits, or is small."""

import re
from enum import StrEnum

from starlette.datastructures import Headers
from starlette.types import Scope

_STREAMED = re.compile(r"/v1/(blobs|held-out-sets|uploads)(/.*)?")
"""Routes that read their bodies as they come and have limits of their own."""

_STREAMED_IF_RAW = re.compile(r"/v1/runs/[^/]+/(checkpoints|files)(/.*)?")
"""The same where the body is raw bytes; as JSON it is read into memory like any other."""

SMALL = 2**20
"""Bytes of a body that is no file but a message: scores must get through where files do not."""

_DIGITS = 15
"""Of a length that is worth reading."""

_FILE = re.compile(r"/v1/(blobs/[^/]+|.+/files/[^/]+)")

_WAITS = frozenset({("POST", "/v1/leases"), ("GET", "/v1/events")})


class Traffic(StrEnum):
    """What requests are told apart by; its value is what many of them are called."""

    UPLOAD = "uploads"
    """Brings a file, and takes as long as the client's line does."""
    DOWNLOAD = "downloads"
    """Takes a file away."""
    WAITING = "requests that wait"
    """For work, or for events."""
    SMALL = "requests"
    """Everything else: over in milliseconds."""


def traffic_of(scope: Scope, headers: Headers) -> Traffic:
    """Tell what kind a request is of."""
    method, path = scope["method"], scope["path"]
    if (method, path) in _WAITS:
        return Traffic.WAITING
    if method == "GET":
        return Traffic.DOWNLOAD if _FILE.fullmatch(path) else Traffic.SMALL
    if method in {"PUT", "POST", "PATCH"} and streams(path, headers) and not _small(headers):
        return Traffic.UPLOAD
    return Traffic.SMALL


def _small(headers: Headers) -> bool:
    """Say whether a body is announced that is no larger than what workers hand in."""
    length = headers.get("content-length", "")
    return length.isdecimal() and len(length) <= _DIGITS and int(length) <= SMALL


def streams(path: str, headers: Headers) -> bool:
    """Say whether the route reads its body as it comes, and not into memory."""
    if _STREAMED.fullmatch(path):
        return True
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/octet-stream" and bool(_STREAMED_IF_RAW.fullmatch(path))
