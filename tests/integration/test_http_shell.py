"""The service's shell: who is let in, what bodies are taken, and what every answer brings."""

import asyncio
import io
from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gate.middleware import SECURITY_HEADERS, RequestLog
from service.problems import Problem
from service.settings import Limits, Settings
from tests.integration.shell import LARGEST, OURS, TOKEN, Shell, events, log_lines


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    with log_lines() as written:
        yield written


@pytest.fixture
def shell() -> Shell:
    return Shell(Settings(limits=Limits(largest_json=LARGEST)))


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
    "2130706433": False, "0x7f000001": False, "0177.0.0.1": False, "127.1": False, "0": False,
    "0.0.0.0": False,  # noqa: S104 - a name that is refused
    "[::ffff:127.0.0.1]": False, "[::1%25lo]": False, "::1": False,
    "localhost.": False, "localhost:": False, "localhost:x": False, "localhost#": False,
    "localhost,evil.example": False, "localhost evil.example": False, "*": False,
}  # fmt: skip
ORIGINS = {  # of the page that asks for a change, and whether it is made
    OURS: True, "https://merge.example": True, "HTTP://127.0.0.1:8117": True,
    "http://evil.example": False, "http://127.0.0.1:3000": False, "http://127.0.0.1": False,
    "http://localhost:8117": False, f"{OURS}.evil.example": False, f"{OURS}/": False,
    "https://merge.example:444": False, "https://x.merge.example": False, "null": False,
    "file://127.0.0.1:8117": False, "127.0.0.1:8117": False, "": False,
    "http://merge.example.evil.example": False, "http://evil.example#127.0.0.1:8117": False,
    "http://127.0.0.1:8117@evil.example": False, "http://evil.example/127.0.0.1:8117": False,
    "http://[::1]:8117": False, "ws://127.0.0.1:8117": False, "chrome-extension://x": False,
    "http://127.0.0.1:8117, http://evil.example": False, " http://127.0.0.1:8117": False,
    "http:127.0.0.1:8117": False, "http//127.0.0.1:8117": False, "*": False, "about:blank": False,
    "http://192.168.1.2:8117": False, "http://127.0.0.1.:8117": False,
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


def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    shell = Shell(Settings(limits=Limits(json_seconds=0.05)))
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
