"""What the service says about itself: log lines, metrics, and the ids that tie them together."""

import logging
import re
import secrets
import traceback
from collections.abc import Callable, Mapping
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

REDACTED = "[redacted]"
"""What stands where a secret was."""

_SECRET_NAMES = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "token"})

_SECRETS = re.compile(
    r"(?i)(?P<kept>\b(?:access_)?token=|\bx-amz-[a-z-]+=|\bbearer\s+|\bckm_[0-9A-Z]{26}_|//(?=[^/\s@]+@))"
    r"[^&;\s\"'@<>]+"
)
"""Tokens and signatures in URLs, bearer credentials, and the user part of a URL."""

_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))
} | {0x2028: "\\u2028", 0x2029: "\\u2029"}  # fmt: skip
"""Signs that end a line or command a terminal, and what is written instead."""

_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)
"""Seconds: from a row looked up to a checkpoint of many gigabytes uploaded."""


class Metrics:
    """Counts of one application, in a registry of its own, so that there can be several."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "ckptmerge_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ckptmerge_http_request_seconds",
            "Time from a request's head to the last byte of its answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def observe(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is its template, of which there are only so many."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def watch_workers(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Show how many workers there are, by what they do; counted when somebody asks."""
        workers = Gauge(
            "ckptmerge_workers",
            "Workers heard of lately.",
            ("state",),
            registry=self.registry,
        )
        for state in count():
            workers.labels(state).set_function(lambda state=state: count()[state])

    def render(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)


def request_id(given: str | None) -> str:
    """Return the client's id of a request where it can be logged as it is, else a new one."""
    return given if given and _WELL_FORMED_ID.fullmatch(given) else secrets.token_hex(16)


_CHATTY = ("httpx2", "alembic")
"""Libraries that tell of every request, which the service's own line does, and of every start."""


def configure_logging(stream: TextIO, *, readable: bool | None = None) -> None:
    """Write all log lines of the process, the libraries' included, to ``stream``.

    Args:
        stream: Where the lines go.
        readable: Whether people read them; otherwise a line is a JSON object. None: whoever
            watches a terminal does.
    """
    readable = stream.isatty() if readable is None else readable
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if readable:
        written: list[Processor] = [
            _redact,
            _escape,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=_write_traceback
            ),
        ]
    else:
        # json.dumps escapes what could end a line.
        written = [
            structlog.processors.format_exc_info,
            _redact,
            structlog.processors.JSONRenderer(default=str),
        ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *written],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {name: _without_secrets(name, value) for name, value in event.items()}


def _without_secrets(name: str, value: object) -> object:
    if name.lower().replace("_", "-") in _SECRET_NAMES:
        return REDACTED
    if isinstance(value, Mapping):
        return {key: _without_secrets(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and name != "exc_info":
        return [_without_secrets("", item) for item in value]
    return without_secrets(value) if isinstance(value, str) else value


def without_secrets(text: str) -> str:
    """Return a text without the tokens, signatures and credentials that it holds."""
    return _SECRETS.sub(rf"\g<kept>{REDACTED}", text)


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {
        name: value.translate(_CONTROLS) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _write_traceback(stream: TextIO, error: ExcInfo) -> None:
    """Write a traceback behind a margin, which nothing in an error's message can leave."""
    text = without_secrets("".join(traceback.format_exception(*error)))
    stream.writelines(f"\n    | {line.translate(_CONTROLS)}" for line in text.splitlines())
