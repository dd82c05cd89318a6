"""The OpenAPI document, complete: what every operation takes, answers and refuses, by example.

A route says what it may refuse with ``refusals``; what any operation may be refused for, and the
examples of resources, which stand with their models, are added here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptmerge.errors import CkptmergeError, DiskFailedError, OutOfSpaceError
from ckptmerge.wire.resource import Resource
from service.gate.capacity import ALWAYS
from service.gate.middleware import SAFE_METHODS
from service.problems import (
    EXAMPLE_ID,
    INSUFFICIENT_SCOPE,
    KINDS,
    MEDIA_TYPE,
    OVERLOADED,
    UNEXPECTED,
    VALIDATION,
    FieldError,
    Kind,
    Problem,
    kind_of_status,
)

JSON = "application/json"

_METHODS = ("get", "head", "post", "put", "patch", "delete")

_SCHEMAS = "#/components/schemas/"

_REASONS: Mapping[int, str] = {
    400: "There was an error parsing the body",
    401: "this service asks for a token: send `Authorization: Bearer …`, or set CKPTMERGE_TOKEN "
    "where ckptmerge runs",
    403: "a page of another site asked for this change; programs leave out Origin and "
    "Sec-Fetch-Site, and pages of the service's own have its origin",
    408: "the body did not come in time; send it again, at once",
    413: "the body is larger than the 16,777,216 bytes that are read into memory here; upload "
    "large files to /v1/blobs and name them by digest",
    429: "too many wrong tokens came from 192.0.2.7; mend the one that is wrong, and try again in "
    "6 s",
    421: "this service does not go by the name 'evil.example'; call it by its address, or list the "
    "name under allowed_hosts in its settings",
    500: "Something went wrong in the service, and it is not the request's fault. The service's "
    "log says what, under this request id.",
    503: "the disk of ckptmerge.sqlite failed (disk I/O error) and nothing was recorded; look at "
    "the disk, then try again",
    507: "the disk of ckptmerge.sqlite is full and nothing was recorded; free some space, then try "
    "again",
}
"""What a client is told whatever it asked for."""

_FAILURES: Mapping[int, Kind] = {
    500: UNEXPECTED,
    503: KINDS[DiskFailedError],
    507: KINDS[OutOfSpaceError],
}
"""What the service itself may fail at, whatever it was asked for."""

_NO_SCOPE = (
    "this takes a token with the scope admin, and this one does not have it; ask whoever runs this "
    "service for one"
)

_TOO_MUCH = (
    "128 requests are being answered, which is as many as there may be at once; try again in 2 s"
)

_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "ckm_<id>_<secret>",
    "description": "A token that `POST /v1/tokens` gave out, or that of the service's settings. "
    "Every token allows `read`, and one with `admin` allows everything.",
}

_WRONG_FORM = FieldError(pointer="/body/step", detail="Input should be a valid integer")


Responses = dict[int | str, dict[str, Any]]
"""What an operation may answer, as FastAPI takes it."""

Details = Mapping[type[CkptmergeError] | Kind | int, str]
"""By error, kind of problem or bare HTTP status: a worked example of what a client is told."""


def refusals(details: Details) -> Responses:
    """Document what an operation may refuse, as its ``responses``.

    Status, type and title follow from the kind of each refusal.
    """
    answers: Responses = {}
    for reason, detail in details.items():
        kind = _kind(reason)
        _add(answers.setdefault(kind.status, {}), kind, detail)
    return answers


Scopes = Mapping[tuple[str, str], Sequence[str]]
"""By path and method: the scopes of which an operation asks for one, or none where it is open."""


def complete(api: dict[str, Any], *, scopes: Scopes | None) -> dict[str, Any]:
    """Complete what FastAPI found out about its routes, in place, and return it.

    Args:
        api: The OpenAPI document; what it says of refusals is FastAPI's own form, never sent.
        scopes: What operations ask for; None where the service asks for no token.
    """
    components = api.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schema = Problem.model_json_schema(ref_template=_SCHEMAS + "{model}")
    schemas.update({**schema.pop("$defs", {}), "Problem": schema})
    if scopes is not None:
        components["securitySchemes"] = {"token": _SCHEME}
        api["security"] = [{"token": []}]
    _restore_examples(schemas)
    for path, method, operation in operations_of(api):
        _hoist(operation, schemas)
        asked = () if scopes is None else scopes[path, method]
        if scopes is not None:
            operation["security"] = [{"token": [scope]} for scope in asked]
        _refuse(path, method, operation, asked)
        _exemplify(operation, schemas)
    return api


def operations_of(api: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and description of every operation."""
    for path, methods in api.get("paths", {}).items():
        for method in _METHODS:
            if method in methods:
                yield path, method, methods[method]


def _kind(reason: type[CkptmergeError] | Kind | int) -> Kind:
    if isinstance(reason, Kind):
        return reason
    if isinstance(reason, int):
        return kind_of_status(reason)
    return next(KINDS[base] for base in reason.__mro__ if base in KINDS)


def _add(answer: dict[str, Any], kind: Kind, detail: str, *fields: FieldError) -> None:
    """Add a problem to the examples of an answer, which is described by all their titles."""
    examples = (
        answer.setdefault("content", {}).setdefault(MEDIA_TYPE, {}).setdefault("examples", {})
    )
    if kind.slug in examples:
        return
    problem = Problem(
        type=f"/problems/{kind.slug}", title=kind.title, status=kind.status, detail=detail,
        request_id=EXAMPLE_ID, errors=list(fields) or None,
    )  # fmt: skip
    examples[kind.slug] = {"summary": kind.title, "value": problem.model_dump(exclude_none=True)}
    titles = dict.fromkeys(example["summary"] for example in examples.values())
    answer["description"] = "; or: ".join(titles) + "."


def _refuse(path: str, method: str, operation: dict[str, Any], scopes: Sequence[str]) -> None:
    """Say of an operation what any may refuse, and that refusals are problems."""
    answers = operation.setdefault("responses", {})
    for status in _everywhere(path, method, operation, asks=bool(scopes)):
        kind = _FAILURES.get(status) or kind_of_status(status)
        _add(answers.setdefault(str(status), {}), kind, _REASONS[status])
    if scopes and "read" not in scopes:
        _add(answers.setdefault("403", {}), INSUFFICIENT_SCOPE, _NO_SCOPE)
    if path not in ALWAYS:
        _add(answers.setdefault("503", {}), OVERLOADED, _TOO_MUCH)
    if "422" in answers:
        wrong = f"{_WRONG_FORM.pointer}: {_WRONG_FORM.detail}"
        _add(answers["422"], VALIDATION, wrong, _WRONG_FORM)
    for status, answer in answers.items():
        if int(status) >= 400:
            shown = answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
            schema = {"$ref": f"{_SCHEMAS}Problem"}
            answer["content"] = {MEDIA_TYPE: {"schema": schema, "examples": shown}}
    operation["responses"] = dict(sorted(answers.items()))


def _everywhere(
    path: str, method: str, operation: Mapping[str, Any], *, asks: bool
) -> Iterator[int]:
    """Yield the statuses that come from what stands before every route, and behind it."""
    takes = operation.get("requestBody", {}).get("content", {})
    yield from (421, 500)
    if asks:
        yield from (401, 429)
    if path.startswith("/v1/"):
        yield 503
    if method.upper() not in SAFE_METHODS:
        yield from (403, 507)
    if takes:
        yield from (408, 413)
    if list(takes) == [JSON]:
        yield 400


def _restore_examples(schemas: Mapping[str, dict[str, Any]]) -> None:
    """Show resources' examples as they are: FastAPI leaves out of them all that is null."""
    shown = {kind.__name__: kind.model_config.get("json_schema_extra") for kind in _below(Resource)}
    for schema in schemas.values():
        extra = shown.get(schema.get("title", ""))
        if isinstance(extra, dict) and "examples" in extra:
            schema["examples"] = extra["examples"]


def _below(kind: type[Resource]) -> Iterator[type[Resource]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def _exemplify(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> None:
    """Show the example of a resource wherever an operation takes or answers it as JSON."""
    bodies = [operation.get("requestBody", {})]
    answers = [answer for status, answer in operation["responses"].items() if status[0] == "2"]
    for holder in (*bodies, *answers):
        media = holder.get("content", {}).get(JSON, {})
        name = media.get("schema", {}).get("$ref", "").removeprefix(_SCHEMAS)
        examples = schemas.get(name, {}).get("examples", ())
        if examples and not media.keys() & {"example", "examples"}:
            media["example"] = examples[0]


def _hoist(operation: Mapping[str, Any], schemas: dict[str, Any]) -> None:
    """Move a body's schema, written where it is used, to those that have names."""
    for media in operation.get("requestBody", {}).get("content", {}).values():
        schema = media.get("schema", {})
        if "title" in schema and "properties" in schema:
            schema = dict(schema)
            schemas.update(schema.pop("$defs", {}))
            schemas[schema["title"]] = schema
            media["schema"] = {"$ref": _SCHEMAS + schema["title"]}
