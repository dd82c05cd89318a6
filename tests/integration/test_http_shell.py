"""The service's shell: who is let in, what is answered, what is logged, and how it ends."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ckptmerge.errors import MissingError
from service.docs import document
from service.middleware import SECURITY_HEADERS, RequestLog, guard
from service.problems import Problem, answer_with_problems
from service.routes.health import health_router
from service.settings import Limits, Settings
from service.telemetry import Metrics, configure_logging

TOKEN = "mbo_" + "0123456789ABCDEF"
OURS = "http://127.0.0.1:8117"
LARGEST = 1000


@dataclass
class Shell:
    """A small service: its app, its parts' state, and what it has done."""

    settings: Settings = field(default_factory=Settings)
    checks: dict[str, bool] = field(default_factory=lambda: {"database": True})
    changes: list[bytes] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    def app(self) -> FastAPI:
        app = FastAPI(title="ckptmerge", version="1", openapi_url=None)
        router = APIRouter(prefix="/runs")

        @router.get("/{run}", operation_id="get_run", summary="A run")
        def one(run: str, limit: int = 10) -> dict[str, int]:
            raise MissingError(f"there is no run {run!r}, {limit}")

        @router.post("/{run}/checkpoints", operation_id="add", summary="<b>Add</b> & keep")
        @app.put("/v1/blobs/{run}", operation_id="add_blob", summary="A blob")
        async def add(run: str, request: Request) -> dict[str, str]:
            self.changes.append(b"".join([part async for part in request.stream()]))
            return {"run": run}

        @router.post("/{run}/fail", operation_id="fail", summary="Fail")
        async def fail(values: dict[str, int]) -> None:
            raise ValueError(f"a bug {values} \r\nINFO forged line token=hush")

        app.include_router(router, prefix="/v1")
        app.include_router(health_router(lambda: self.checks, self.metrics))
        document(app, token_required=self.settings.token is not None)
        answer_with_problems(app)
        guard(app, self.settings, self.metrics)
        return app

    def client(self, **headers: str) -> TestClient:
        return TestClient(self.app(), base_url=OURS, headers=headers)


@pytest.fixture
def shell() -> Shell:
    return Shell(Settings(limits=Limits(largest_json=LARGEST)))


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Log lines as the service writes them for programs."""
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers, root.level
    configure_logging(stream, readable=False)
    yield stream
    root.handlers, root.level = before
    structlog.reset_defaults()


def events(lines: io.StringIO) -> list[dict[str, object]]:
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [event for event in found if event["logger"] != "httpx2"]  # the test's own client


NAMED = Settings(allowed_hosts=("merge.example",), host="192.168.1.2")
SECRET = Settings(token=TOKEN)
CHANGE = "/v1/runs/a/checkpoints"
BEARER = {"authorization": f"Bearer {TOKEN}"}

HOSTS = {  # as which the service is called, and whether it listens then
    "127.0.0.1": True, "127.0.0.1:8117": True, "localhost:3000": True, "LocalHost": True,
    "[::1]:8117": True, "merge.example": True, "Merge.Example:443": True, "192.168.1.2:80": True,
    "evil.example": False, "evil.example:8117": False, "127.0.0.1.evil.example": False,
    "localhost.evil.example": False, "x.merge.example": False, "evil.example@127.0.0.1": False,
    "127.0.0.1:80:80": False, "127.0.0.1/x": False, "127.0.0.2": False, "[::2]": False, "": False,
}  # fmt: skip
ORIGINS = {  # of the page that asks for a change, and whether it is made
    OURS: True, "https://merge.example": True, "HTTP://127.0.0.1:8117": True,
    "http://evil.example": False, "http://127.0.0.1:3000": False, "http://127.0.0.1": False,
    "http://localhost:8117": False, f"{OURS}.evil.example": False, f"{OURS}/": False,
    "https://merge.example:444": False, "https://x.merge.example": False, "null": False,
    "file://127.0.0.1:8117": False, "127.0.0.1:8117": False, "": False,
}  # fmt: skip
AUTHORIZATIONS = {
    f"Bearer {TOKEN}": True, f"bearer  {TOKEN}": True,
    f"Bearer {TOKEN}x": False, f"Bearer {TOKEN[:-1]}": False, f"Bearer {TOKEN.lower()}": False,
    f"Basic {TOKEN}": False, f"Bearer{TOKEN}": False, TOKEN: False, "Bearer": False,
    "Bearer ": False, "": False,
}  # fmt: skip


def status_of(settings: Settings, method: str, path: str, headers: dict[str, str]) -> int:
    """Ask, check that only an answered change is made and that a refusal is a problem."""
    shell = Shell(settings)
    answer = shell.client().request(method, path, headers=headers)
    assert bool(shell.changes) == (answer.status_code == 200 and method == "POST")
    if answer.status_code >= 400:
        assert Problem.model_validate_json(answer.content).status == answer.status_code
    return answer.status_code


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
@pytest.mark.parametrize(("host", "ours"), HOSTS.items())
def test_the_service_answers_to_its_own_names_only(path: str, host: str, ours: bool) -> None:
    assert status_of(NAMED, "GET", path, {"host": host}) == (200 if ours else 421)


def test_a_name_is_ours_only_where_it_is_configured() -> None:
    assert status_of(Settings(), "GET", "/healthz", {"host": "merge.example"}) == 421


def test_a_foreign_name_is_refused_before_anything_else() -> None:
    assert status_of(SECRET, "GET", "/nowhere", {"host": "evil.example"}) == 421
    assert status_of(SECRET, "GET", "/nowhere", {"host": "evil.example", **BEARER}) == 421


@pytest.mark.parametrize(("origin", "own"), ORIGINS.items())
def test_a_change_is_made_for_pages_of_our_own_only(origin: str, own: bool) -> None:
    assert status_of(NAMED, "POST", CHANGE, {"origin": origin}) == (200 if own else 403)


@pytest.mark.parametrize(("site", "own"), {"cross-site": 0, "same-origin": 1, "none": 1}.items())
def test_a_change_is_not_made_for_another_site(site: str, own: bool) -> None:
    assert status_of(NAMED, "POST", CHANGE, {"sec-fetch-site": site}) == (200 if own else 403)


def test_looking_is_not_changing() -> None:
    foreign = {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}
    assert status_of(Settings(), "GET", "/healthz", foreign) == 200


@pytest.mark.parametrize(("given", "right"), AUTHORIZATIONS.items())
def test_only_the_token_opens_the_service(given: str, right: bool) -> None:
    headers = {"authorization": given} if given else {}
    assert status_of(SECRET, "POST", CHANGE, headers) == (200 if right else 401)


@pytest.mark.parametrize(
    "path", ["/nowhere", "/metrics", "/docs", "/openapi.json", "/healthz/x", f"/?token={TOKEN}"]
)
def test_without_the_token_nothing_is_told(path: str) -> None:
    assert status_of(SECRET, "GET", path, {}) == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_without_the_token_an_orchestrator_learns_whether_we_live(path: str) -> None:
    assert status_of(SECRET, "GET", path, {}) == 200


def test_two_hosts_are_none(shell: Shell) -> None:
    answer = shell.client().get("/healthz", headers=[("host", "127.0.0.1"), ("host", "localhost")])
    assert answer.status_code == 421


def test_two_tokens_are_none() -> None:
    both = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer x")]
    assert Shell(SECRET).client().get("/v1/runs/a", headers=both).status_code == 401


def test_a_missing_token_is_asked_for_and_a_wrong_one_called_wrong() -> None:
    client = Shell(SECRET).client()
    missing, wrong = client.get("/metrics"), client.get("/metrics", headers={"authorization": "x"})
    assert missing.headers["www-authenticate"] == 'Bearer realm="ckptmerge"'
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]


def test_a_preflight_is_not_granted(shell: Shell) -> None:
    answer = shell.client().options(
        CHANGE,
        headers={"origin": "http://evil.example", "access-control-request-method": "POST"},
    )
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_body_that_is_announced_too_large_is_refused(shell: Shell) -> None:
    answer = shell.client().post(CHANGE, content=b"x" * (LARGEST + 1))
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
    assert answer.headers["connection"] == "close"
    assert shell.changes == []


def test_a_body_of_the_largest_size_is_taken(shell: Shell) -> None:
    answer = shell.client().post(CHANGE, content=b"x" * LARGEST)
    assert answer.status_code == 200


def test_a_body_that_grows_too_large_unannounced_is_refused(shell: Shell) -> None:
    parts = (b"x" * 400 for _ in range(10))
    answer = shell.client().post(CHANGE, content=parts)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
    assert shell.changes == []


class Client:
    """An ASGI client that says what it is told to, and then nothing more."""

    def __init__(self, *said: Message) -> None:
        self.said = list(said)
        self.heard: list[Message] = []

    async def receive(self) -> Message:
        return self.said.pop(0) if self.said else await asyncio.Event().wait() or {}

    async def send(self, message: Message) -> None:
        self.heard.append(message)

    def ask(self, app: ASGIApp, path: str = CHANGE) -> None:
        head = {"type": "http", "method": "POST", "path": path, "query_string": b"",
                "headers": [(b"host", b"127.0.0.1"), (b"content-length", b"10")]}  # fmt: skip
        asyncio.run(app(head, self.receive, self.send))


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.middleware.BODY_SECONDS", 0.05)
    client = Client({"type": "http.request", "body": b"x", "more_body": True})
    client.ask(shell.app())
    assert client.heard[0]["status"] == 408
    assert shell.changes == []


def test_a_client_that_leaves_is_neither_answered_nor_a_failure(
    shell: Shell, lines: io.StringIO
) -> None:
    client = Client({"type": "http.disconnect"})
    client.ask(shell.app())
    assert client.heard == []
    assert [(event["event"], event["status"]) for event in events(lines)] == [("request", 499)]


def test_an_answer_that_breaks_off_is_not_made_to_look_whole(
    shell: Shell, lines: io.StringIO
) -> None:
    async def half(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError("the disk is gone")

    client = Client()
    with pytest.raises(OSError, match="the disk is gone"):
        client.ask(RequestLog(half, metrics=shell.metrics))
    assert [message["type"] for message in client.heard] == ["http.response.start"]
    assert [event["event"] for event in events(lines)] == ["request failed", "request"]


@pytest.mark.parametrize("announced", ["9" * 5000, "-1", "x"])
def test_a_length_that_is_none_is_too_large(shell: Shell, announced: str) -> None:
    headers = {"content-length": announced}
    assert shell.client().post("/v1/runs/a/checkpoints", headers=headers).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "media_type", "status"),
    [
        ("PUT", "/v1/blobs/x", "application/octet-stream", 200),
        ("PUT", "/v1/blobs/x", "application/json", 200),
        ("POST", "/v1/runs/a/checkpoints", "application/octet-stream", 200),
        ("POST", "/v1/runs/a/checkpoints", "Application/Octet-Stream; x=y", 200),
        ("POST", "/v1/runs/a/checkpoints", "application/json", 413),
        ("POST", "/v1/runs/a/fail", "application/octet-stream", 413),
        ("PUT", "/v1/blobsx", "application/octet-stream", 413),
        ("PUT", "/x/v1/blobs/x", "application/octet-stream", 413),
    ],
)
def test_only_what_is_streamed_may_be_large(
    shell: Shell, method: str, path: str, media_type: str, status: int
) -> None:
    answer = shell.client().request(
        method, path, content=b"x" * (LARGEST + 1), headers={"content-type": media_type}
    )
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/v1/runs/a", "/nowhere"])
def test_every_answer_brings_the_security_headers(shell: Shell, path: str) -> None:
    answer = shell.client().get(path)
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_refusals_and_failures_bring_them_too(shell: Shell) -> None:
    client = shell.client()
    refused = client.get("/healthz", headers={"host": "evil.example"})
    failed = client.post("/v1/runs/a/fail", json={})
    assert (refused.status_code, failed.status_code) == (421, 500)
    for answer in (refused, failed):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_a_clients_request_id_is_kept(shell: Shell) -> None:
    answer = shell.client().get("/v1/runs/a", headers={"x-request-id": "train-17.a_b"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "train-17.a_b"


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, 'x"}', "ä"])
def test_an_id_that_could_not_be_logged_is_replaced(shell: Shell, given: str) -> None:
    headers = {"x-request-id": given.encode("latin-1")}
    answers = [shell.client().get("/healthz", headers=headers) for _ in range(2)]  # pyright: ignore[reportArgumentType]
    identities = {answer.headers["x-request-id"] for answer in answers}
    assert len(identities) == 2
    assert all(len(identity) == 32 for identity in identities)


def test_a_service_whose_parts_work_is_ready(shell: Shell) -> None:
    answer = shell.client().get("/readyz")
    assert answer.json() == {"ready": True, "checks": {"database": True}}


def test_a_service_with_a_broken_part_lives_but_is_not_ready(shell: Shell) -> None:
    shell.checks["disk"] = False
    client = shell.client()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/not-ready")
    assert [part["pointer"] for part in answer.json()["errors"]] == ["/checks/disk"]
    assert client.get("/healthz").json() == {"status": "alive"}


def test_requests_are_counted_by_the_template_of_their_route(shell: Shell) -> None:
    client = shell.client()
    for path in ("/v1/runs/a", "/v1/runs/b", "/nowhere/1", "/nowhere/2"):
        client.get(path)
    client.request("BREW", "/v1/runs/a")
    client.get("/healthz", headers={"host": "evil.example"})
    shown = client.get("/metrics").text
    count = "ckptmerge_http_requests_total"
    assert f'{count}{{method="GET",route="/v1/runs/{{run}}",status="404"}} 2.0' in shown
    assert f'{count}{{method="GET",route="unmatched",status="404"}} 2.0' in shown
    assert f'{count}{{method="GET",route="unmatched",status="421"}} 1.0' in shown
    assert f'{count}{{method="other",route="/v1/runs/{{run}}",status="405"}} 1.0' in shown
    assert 'seconds_count{method="GET",route="/v1/runs/{run}"} 2.0' in shown


def test_every_app_has_its_own_counts(shell: Shell) -> None:
    shell.client().get("/v1/runs/a")
    assert "/v1/runs" not in Shell().client().get("/metrics").text


def test_the_document_says_that_every_refusal_is_a_problem(shell: Shell) -> None:
    api = shell.client().get("/openapi.json").json()
    assert "HTTPValidationError" not in api["components"]["schemas"]
    assert "/docs" not in api["paths"]
    for path, methods in api["paths"].items():
        for operation in methods.values():
            assert {"421", "500"} <= operation["responses"].keys(), path
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"]
    assert "security" not in api


def test_the_document_of_a_service_with_a_token_says_so() -> None:
    client = Shell(SECRET).client(authorization=f"Bearer {TOKEN}")
    assert client.get("/openapi.json").json()["security"] == [{"token": []}]
    assert "$CKPTMERGE_TOKEN" in client.get("/docs").text


def test_the_page_shows_every_operation_and_loads_nothing(shell: Shell) -> None:
    client = shell.client()
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for text in ("GET /v1/runs/{run}", "GET /readyz", "limit", "problem-lease-lost", f"{OURS}/v1/"):
        assert text in page.text
    assert "&lt;b&gt;Add&lt;/b&gt; &amp; keep" in page.text
    assert "<script" not in page.text
    assert " src=" not in page.text
    assert "<link" not in page.text


def test_a_problems_type_leads_to_its_meaning(shell: Shell) -> None:
    client = shell.client()
    answer = client.get("/problems/lease-lost", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/docs#problem-lease-lost")
    assert client.get("/problems/none-such").status_code == 404


def test_a_request_is_one_line_without_its_query(shell: Shell, lines: io.StringIO) -> None:
    shell.client().get("/v1/runs/a?token=hush&limit=1", headers={"x-request-id": "r1"})
    (line,) = events(lines)
    assert line["request_id"] == "r1"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/runs/a", 404)
    assert "hush" not in lines.getvalue()


def test_a_failure_is_logged_with_its_traceback_and_its_id(
    shell: Shell, lines: io.StringIO
) -> None:
    answer = shell.client().post("/v1/runs/a/fail", json={"x": 1})
    failure, line = events(lines)
    assert failure["request_id"] == line["request_id"] == answer.json()["request_id"]
    assert "a bug {'x': 1}" in str(failure["exception"])
    assert line["status"] == 500
    assert "hush" not in lines.getvalue()


@pytest.mark.parametrize("readable", [True, False])
def test_nothing_said_to_the_service_can_forge_a_line(lines: io.StringIO, readable: bool) -> None:
    configure_logging(lines, readable=readable)
    evil = "/x\r\n2026-01-01 INFO forged\x1b[2J\u2028forged"
    structlog.get_logger("shell").warning(evil, path=evil, nested={"key": evil})
    logging.getLogger("uvicorn.error").warning("%s", evil)
    structlog.get_logger("shell").error("failed", exc_info=ValueError(evil))
    written = lines.getvalue()
    assert written.count("forged") >= 8
    assert "\x1b" not in written
    assert "\r" not in written
    assert not [line for line in written.splitlines() if line.startswith(("2026-01-01", "forged"))]


def test_secrets_are_not_logged(lines: io.StringIO) -> None:
    log = structlog.get_logger("shell")
    log.info("head", headers={"Authorization": "Bearer hush", "Cookie": "hush", "Accept": "*/*"})
    log.info("url", url="https://user:hush@host/x?a=1&token=hush&X-Amz-Signature=hush#end")
    logging.getLogger("elsewhere").warning("sent Bearer hush to ?access_token=hush")
    assert "hush" not in lines.getvalue()
    assert [event["event"] for event in events(lines)][:2] == ["head", "url"]
    assert "a=1" in lines.getvalue()
    assert "*/*" in lines.getvalue()
