"""The API's own description: /openapi.json, and a page of it at /docs that needs nothing else."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, StrictUndefined
from starlette.exceptions import HTTPException

from ckptmerge.domain.token import Scope
from service.gate.auth import needs, scopes_of
from service.interface import complete, operations_of
from service.problems import (
    DRAINING,
    INSUFFICIENT_SCOPE,
    KINDS,
    MEDIA_TYPE,
    NOT_READY,
    OVERLOADED,
    UNEXPECTED,
    VALIDATION,
    Kind,
)

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .875em }
pre { overflow-x: auto; padding: .75rem; background: #f4f4f2; border-radius: 4px }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0 }
section { border-top: 1px solid #ccc; margin-top: 2rem }
h3 code { font-size: 1rem }
@media (prefers-color-scheme: dark) {
  body { background: #16181b; color: #ddd } pre { background: #22262a } a { color: #8ab4f8 }
}
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ description }}</p>
<p>The same for programs: <a href="/openapi.json">openapi.json</a> (OpenAPI {{ version }}).
Every refusal is a <a href="#problems">problem</a>.</p>
<nav><ul>
{% for operation in operations %}
<li><a href="#{{ operation.id }}"><code>{{ operation.method }} {{ operation.path }}</code></a>
{{ operation.summary }}</li>
{% endfor %}
</ul></nav>
<main>
{% for operation in operations %}
<section id="{{ operation.id }}">
<h3><code>{{ operation.method }} {{ operation.path }}</code></h3>
<p>{{ operation.summary }}</p>
{% if operation.description %}<p>{{ operation.description }}</p>{% endif %}
{% if operation.scopes %}<p>Scope: {{ operation.scopes | join(" or ") }}</p>{% endif %}
{% if operation.parameters %}
<table>
<tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>
{% for parameter in operation.parameters %}
<tr><td><code>{{ parameter.name }}</code></td><td>{{ parameter.place }}</td>
<td>{{ parameter.type }}</td>
<td>{{ "required. " if parameter.required }}{{ parameter.description }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% for body in operation.bodies %}
<p>Body, <code>{{ body.media_type }}</code>: {{ body.type }}</p>
{% if body.example %}<pre>{{ body.example }}</pre>{% endif %}
{% endfor %}
<table>
<tr><th>Answer</th><th></th></tr>
{% for status, meaning in operation.answers %}
<tr><td>{{ status }}</td><td>{{ meaning }}</td></tr>
{% endfor %}
</table>
<pre>{{ operation.curl }}</pre>
</section>
{% endfor %}
<section>
<h2 id="schemas">Resources</h2>
{% for name, schema in schemas %}
<h3 id="schema-{{ name }}">{{ name }}</h3>
<pre>{{ schema }}</pre>
{% endfor %}
</section>
<section>
<h2 id="problems">Problems</h2>
<p>Answers of status 400 and above have the media type <code>{{ problem_type }}</code> (RFC 9457).
Compare <code>type</code>, show <code>detail</code>, quote <code>request_id</code>.</p>
<table>
<tr><th>Type</th><th>Status</th><th>Meaning</th></tr>
{% for kind in kinds %}
<tr id="problem-{{ kind.slug }}"><td><code>/problems/{{ kind.slug }}</code></td>
<td>{{ kind.status }}</td><td>{{ kind.title }}</td></tr>
{% endfor %}
</table>
<p>Where nothing more is known the type is the status in words,
such as <code>/problems/not-found</code>.</p>
</section>
</main>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an operation, in words."""

    name: str
    place: str
    type: str
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Body:
    """A body that an operation takes, in words."""

    media_type: str
    type: str
    example: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked of the service, in words."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    parameters: Sequence[Parameter]
    bodies: Sequence[Body]
    answers: Sequence[tuple[str, str]]
    curl: str
    scopes: Sequence[str]
    """Of which a token must have one."""


def document(app: FastAPI, *, asks: Callable[[], bool]) -> None:
    """Serve /openapi.json, /docs and the meaning of every problem type.

    ``app`` must have been made with ``openapi_url=None``, so that FastAPI's own pages, which load
    their scripts from elsewhere, are not there. The document is made when first asked for; routes
    that are added later are not in it.

    Args:
        app: The application.
        asks: Says whether the service asks for a token by now.
    """
    known: dict[bool, dict[str, Any]] = {}

    def described() -> dict[str, Any]:
        asking = asks()
        if asking not in known:
            known[asking] = complete(
                _openapi(app), scopes=scopes_of(app.routes) if asking else None
            )
        return known[asking]

    app.openapi = described
    app.include_router(_router(app))


def _openapi(app: FastAPI) -> dict[str, Any]:
    return get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description,
        routes=app.routes, tags=app.openapi_tags,
    )  # fmt: skip


def _router(app: FastAPI) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    anybody = [needs(Scope.READ)]
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(_PAGE)

    @router.get("/openapi.json", dependencies=anybody)
    def machine_readable() -> JSONResponse:
        return JSONResponse(app.openapi())

    @router.get("/docs", dependencies=anybody)
    def readable(request: Request) -> HTMLResponse:
        api = app.openapi()
        return HTMLResponse(
            page.render(
                title=app.title,
                description=app.description,
                version=api["openapi"],
                operations=list(_in_words(api, str(request.base_url).rstrip("/"))),
                schemas=[
                    (name, json.dumps(schema, indent=2, ensure_ascii=False))
                    for name, schema in sorted(api["components"]["schemas"].items())
                ],
                problem_type=MEDIA_TYPE,
                kinds=_kinds(),
            )
        )

    @router.get("/problems/{slug}", dependencies=anybody)
    def meaning(slug: str) -> RedirectResponse:
        if slug not in {kind.slug for kind in _kinds()}:
            raise HTTPException(404, f"there is no problem of type {slug!r}; /docs lists them")
        return RedirectResponse(f"/docs#problem-{slug}", status_code=303)

    return router


_FURTHER = (UNEXPECTED, VALIDATION, NOT_READY, OVERLOADED, DRAINING, INSUFFICIENT_SCOPE)
"""Kinds of problems that no error of the library stands for."""


def _kinds() -> Sequence[Kind]:
    kinds = {kind.slug: kind for kind in (*KINDS.values(), *_FURTHER)}
    return sorted(kinds.values(), key=lambda kind: (kind.status, kind.slug))


def _in_words(api: Mapping[str, Any], base: str) -> Iterator[Operation]:
    schemas = api["components"]["schemas"]
    for path, method, operation in operations_of(api):
        bodies = tuple(
            Body(media_type, _type(media.get("schema", {})), _example(media, schemas))
            for media_type, media in operation.get("requestBody", {}).get("content", {}).items()
        )
        yield Operation(
            id=operation["operationId"],
            method=method.upper(),
            path=path,
            summary=operation.get("summary", ""),
            description=operation.get("description", ""),
            parameters=tuple(map(_parameter, operation.get("parameters", ()))),
            bodies=bodies,
            answers=tuple(
                (status, answer.get("description", ""))
                for status, answer in operation["responses"].items()
            ),
            curl=_curl(method.upper(), base + path, bodies, token=bool(operation.get("security"))),
            scopes=[scope for asked in operation.get("security", ()) for scope in asked["token"]],
        )


def _parameter(parameter: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=parameter["name"],
        place=parameter["in"],
        type=_type(parameter.get("schema", {})),
        required=parameter.get("required", False),
        description=parameter.get("description", ""),
    )


def _type(schema: Mapping[str, Any]) -> str:
    """Name a schema the way a reader would."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return schema.get("type", "anything")


def _example(media: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """Return the operation's example, or else its resource's, as JSON; empty where none is."""
    examples = [example["value"] for example in media.get("examples", {}).values()]
    examples += [media["example"]] if "example" in media else []
    schema = media.get("schema", {})
    examples += schemas.get(_type(schema), schema).get("examples", [])
    return json.dumps(examples[0], indent=2, ensure_ascii=False) if examples else ""


def _curl(method: str, url: str, bodies: Sequence[Body], *, token: bool) -> str:
    parts = ["curl" if method == "GET" else "curl -I" if method == "HEAD" else f"curl -X {method}"]
    parts += ['-H "Authorization: Bearer $CKPTMERGE_TOKEN"'] if token else []
    if bodies:
        body = bodies[0]
        parts += [f"-H 'Content-Type: {body.media_type}'"]
        quoted = body.example.replace("'", "'\\''")
        parts += [f"-d '{quoted}'" if quoted else "--data-binary @FILE"]
    return " \\\n  ".join([*parts, f"'{url}'"])
