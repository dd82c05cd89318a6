"""Problem details (RFC 9457): every refusal and failure the service answers with has this form."""

import http
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import gettempdir

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from ckptmerge import errors
from ckptmerge.storage.durable import FULL

MEDIA_TYPE = "application/problem+json"

EXAMPLE_ID = "9f2c6a3e5d0b4c1f8a7e6d5c4b3a2f10"
"""Request id in worked examples."""

ERRORS_SHOWN = 50
"""Of one request. A manifest of thousands of files can be wrong thousands of times."""

_log = structlog.get_logger(__name__)


class FieldError(BaseModel):
    """One part of the request that cannot be used."""

    model_config = ConfigDict(frozen=True)

    pointer: str
    """JSON pointer (RFC 6901) into the request, such as ``/body/files/0/digest``."""
    detail: str


class Problem(BaseModel):
    """Why the request was not carried out."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/missing",
                    "title": "What was named is not there",
                    "status": 404,
                    "detail": "there is no run 'olmo-1b'; POST /v1/runs makes it",
                    "request_id": EXAMPLE_ID,
                }
            ]
        },
    )

    type: str
    """Names the kind of problem; programs compare this, and nothing else."""
    title: str
    """The kind of problem in words, the same every time."""
    status: int = Field(ge=400, le=599)
    detail: str
    """What happened this time, to what, and what to do next."""
    request_id: str
    """Finds the request in the service's log."""
    errors: list[FieldError] | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem."""

    status: int
    slug: str
    """Last part of its type, ``/problems/<slug>``."""
    title: str


UNEXPECTED = Kind(500, "unexpected", "The service failed")
NOT_READY = Kind(503, "not-ready", "The service cannot work at the moment")
OVERLOADED = Kind(503, "overloaded", "More is asked than can be answered at once")
DRAINING = Kind(503, "draining", "The service is about to stop")
INSUFFICIENT_SCOPE = Kind(403, "insufficient-scope", "The token does not allow this")
VALIDATION = Kind(422, "invalid-request", "The request does not have the form it should have")

KINDS: Mapping[type[errors.CkptmergeError], Kind] = {
    errors.CkptmergeError: UNEXPECTED,
    errors.InvalidInputError: Kind(422, "invalid-input", "What was handed in cannot be used"),
    errors.CheckpointFormatError: Kind(422, "checkpoint-format", "Not the model it should be"),
    errors.TruncatedFileError: Kind(422, "truncated-file", "Bytes are missing, or too many"),
    errors.NonFiniteTensorError: Kind(422, "non-finite-tensor", "A tensor holds NaN or infinity"),
    errors.IncompatibleCheckpointsError: Kind(
        409, "incompatible-checkpoint", "The checkpoints are not of one model"
    ),
    errors.InvalidWeightsError: Kind(422, "invalid-weights", "These cannot be merge weights"),
    errors.HeldOutSetError: Kind(422, "held-out-set", "The documents cannot judge a model"),
    errors.TokenizerError: Kind(422, "tokenizer", "The text cannot be turned into tokens"),
    errors.DigestMismatchError: Kind(422, "digest-mismatch", "The bytes are other than announced"),
    errors.TooLargeError: Kind(413, "too-large", "More bytes than announced or allowed"),
    errors.UploadLengthError: Kind(
        400, "inconsistent-upload-length", "Not the length that the upload was begun with"
    ),
    errors.MissingError: Kind(404, "missing", "What was named is not there"),
    errors.RefusedError: Kind(409, "refused", "Understood, and not carried out"),
    errors.BarrierError: Kind(409, "barrier", "These checkpoints do not merge"),
    errors.OutputExistsError: Kind(409, "output-exists", "Something stands there already"),
    errors.OutOfSpaceError: Kind(507, "out-of-space", "The disk is full"),
    errors.StepExistsError: Kind(409, "step-exists", "The run has other bytes at this step"),
    errors.NameTakenError: Kind(409, "name-taken", "Something else goes by this name"),
    errors.SourceRefusedError: Kind(403, "source-refused", "The service may not read there"),
    errors.LeaseLostError: Kind(409, "lease-lost", "The lease ran out"),
    errors.OutcomeConflictError: Kind(
        409, "outcome-conflict", "The task was finished with another outcome"
    ),
    errors.UploadOffsetError: Kind(
        409, "mismatching-upload-offset", "The upload ends somewhere else"
    ),
    errors.UploadCompletedError: Kind(410, "completed-upload", "The upload is complete already"),
    errors.ModelLoadError: UNEXPECTED,
    errors.NonFiniteLossError: UNEXPECTED,
    errors.ProposerError: UNEXPECTED,
    errors.DiskFailedError: Kind(503, "disk-failed", "The disk failed"),
    errors.StoreUnavailableError: NOT_READY,
    errors.StoreTakenError: NOT_READY,
    errors.ServiceError: UNEXPECTED,
    errors.IllegalTransitionError: Kind(409, "illegal-transition", "Its state does not allow this"),
}
"""The one place that knows which HTTP status an error has; a subclass takes its parent's."""


_RENAMED = {
    413: KINDS[errors.TooLargeError],
    414: Kind(414, "uri-too-long", "URI Too Long"),
    416: Kind(416, "range-not-satisfiable", "Range Not Satisfiable"),
    422: VALIDATION,
}
"""Statuses that newer Pythons call by other words: a type must not change with the interpreter."""


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")


def kind_of(error: errors.CkptmergeError) -> Kind:
    """Return the kind of problem that an error is."""
    return next(KINDS[base] for base in type(error).__mro__ if base in KINDS)


def kind_of_status(status: int) -> Kind:
    """Return the kind of problem that an HTTP status stands for, where nothing more is known."""
    if status in _RENAMED:
        return _RENAMED[status]
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = f"Status {status}"
    return Kind(status, phrase.lower().replace(" ", "-").replace("'", ""), phrase)


def problem_response(
    kind: Kind,
    detail: str,
    *,
    request_id: str,
    errors: Sequence[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Write a problem as the answer to a request."""
    problem = Problem(
        type=f"/problems/{kind.slug}", title=kind.title, status=kind.status, detail=detail,
        request_id=request_id, errors=None if errors is None else list(errors),
    )  # fmt: skip
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=kind.status,
        headers={**(headers or {}), "Cache-Control": "no-store"},
        media_type=MEDIA_TYPE,
    )


def answer_with_problems(app: FastAPI) -> None:
    """Answer every error that is raised in ``app`` with a problem."""
    app.exception_handler(errors.CkptmergeError)(_raised_on_purpose)
    app.exception_handler(RequestValidationError)(_wrong_form)
    app.exception_handler(HTTPException)(_http_status)
    app.exception_handler(Exception)(unexpected)


async def unexpected(request: Request, error: Exception) -> Response:
    """Log an error that nobody foresaw, and answer without saying what it was.

    The log has the traceback; the client gets the id to find it by. A disk can be full anywhere,
    also that of temporary files, and whoever hears of it can do something.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        return await _raised_on_purpose(request, _no_room(error))
    _log.error("request failed", path=request.scope["path"], exc_info=error)
    return problem_response(
        UNEXPECTED,
        "Something went wrong in the service, and it is not the request's fault. The service's "
        "log says what, under this request id.",
        request_id=_id(request),
    )


def _no_room(error: OSError) -> errors.OutOfSpaceError:
    where = error.filename or f"the service, or that of its temporary files ({gettempdir()})"
    return errors.OutOfSpaceError(
        f"the disk of {where} is full and nothing was acknowledged; free some space there, or set "
        "TMPDIR to another disk, and send again"
    )


async def _raised_on_purpose(request: Request, error: errors.CkptmergeError) -> Response:
    kind = kind_of(error)
    if kind is UNEXPECTED:
        return await unexpected(request, error)
    if kind.status >= 500:
        # The client can do little about it; whoever runs the service can.
        _log.error("request failed", path=request.scope["path"], reason=str(error))
    return problem_response(kind, str(error), request_id=_id(request))


async def _wrong_form(request: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    parts = [
        FieldError(pointer=_pointer(item), detail=str(item["msg"])) for item in found[:ERRORS_SHOWN]
    ]
    more = len(found) - len(parts)
    return problem_response(
        VALIDATION,
        "; ".join(f"{part.pointer}: {part.detail}" for part in parts[:3])
        + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        + (f", the first {len(parts)} of them listed" if more > 0 else ""),
        request_id=_id(request),
        errors=parts,
    )


async def _http_status(request: Request, error: HTTPException) -> Response:
    if error.status_code < 400:  # a redirect or 304 is no problem, and has no body
        return Response(status_code=error.status_code, headers=error.headers)
    kind = kind_of_status(error.status_code)
    detail = str(error.detail)
    if detail == kind.title:
        detail = _without_words(kind, request)
    headers = dict(error.headers or {})
    if kind.status == 405:
        headers["Allow"] = ", ".join(_methods_of(request))
    return problem_response(kind, detail, request_id=_id(request), headers=headers)


def _methods_of(request: Request) -> Sequence[str]:
    """Return every method that the path takes (RFC 9110, section 10.2.1).

    The router names those of the first route that has this path, and one path has several.
    """
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _without_words(kind: Kind, request: Request) -> str:
    """Say more than the router does, which raises the bare status."""
    method, path = request.scope["method"], request.scope["path"]
    match kind.status:
        case 404:
            return f"nothing is served at {path}; /docs lists what is"
        case 405:
            return f"{path} does not take {method}; the Allow header says what it takes"
        case _:
            return f"{method} {path}: {kind.title}"


def _pointer(item: Mapping[str, object]) -> str:
    location = item["loc"]
    parts = location if isinstance(location, (tuple, list)) else (location,)
    if item["type"] == "json_invalid":
        parts = parts[:1]  # what follows is a position in the text
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def _id(request: Request) -> str:
    return getattr(request.state, "request_id", "none")
