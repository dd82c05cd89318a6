"""The OpenAPI document, complete: what every operation takes, answers and refuses, by example.

A route says what it may refuse with ``refusals``; what any operation may be refused for, and the
examples of resources, which stand with their models, are added here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ckptmerge.errors import CkptmergeError
from ckptmerge.wire.resource import Resource
from service.middleware import OPEN_PATHS, SAFE_METHODS
from service.problems import (
    EXAMPLE_ID,
    KINDS,
    MEDIA_TYPE,
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
    421: "this service does not go by the name 'evil.example'; call it by its address, or list the "
    "name under allowed_hosts in its settings",
    500: "Something went wrong in the service, and it is not the request's fault. The service's "
    "log says what, under this request id.",
}
"""What a client is told whatever it asked for."""

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


def complete(api: dict[str, Any], *, token_required: bool) -> dict[str, Any]:
    """Complete what FastAPI found out about its routes, in place, and return it.

    Args:
        api: The OpenAPI document; what it says of refusals is FastAPI's own form, never sent.
        token_required: Whether the service asks for a token.
    """
    components = api.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schema = Problem.model_json_schema(ref_template=_SCHEMAS + "{model}")
    schemas.update({**schema.pop("$defs", {}), "Problem": schema})
    if token_required:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        api["security"] = [{"token": []}]
    _restore_examples(schemas)
    for path, method, operation in operations_of(api):
        _hoist(operation, schemas)
        _refuse(path, method, operation, token_required=token_required)
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


def _refuse(path: str, method: str, operation: dict[str, Any], *, token_required: bool) -> None:
    """Say of an operation what any may refuse, and that refusals are problems."""
    answers = operation.setdefault("responses", {})
    asks = token_required and path not in OPEN_PATHS
    if token_required and not asks:
        operation["security"] = []
    for status in _everywhere(method, operation, asks=asks):
        kind = UNEXPECTED if status == UNEXPECTED.status else kind_of_status(status)
        _add(answers.setdefault(str(status), {}), kind, _REASONS[status])
    if "422" in answers:
        wrong = f"{_WRONG_FORM.pointer}: {_WRONG_FORM.detail}"
        _add(answers["422"], VALIDATION, wrong, _WRONG_FORM)
    for status, answer in answers.items():
        if int(status) >= 400:
            shown = answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
            schema = {"$ref": f"{_SCHEMAS}Problem"}
            answer["content"] = {MEDIA_TYPE: {"schema": schema, "examples": shown}}
    operation["responses"] = dict(sorted(answers.items()))


def _everywhere(method: str, operation: Mapping[str, Any], *, asks: bool) -> Iterator[int]:
    """Yield the statuses that come from what stands before every route."""
    takes = operation.get("requestBody", {}).get("content", {})
    yield from (421, 500)
    if asks:
        yield 401
    if method.upper() not in SAFE_METHODS:
        yield 403
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
