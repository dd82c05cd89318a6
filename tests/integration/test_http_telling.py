"""The service's shell: what it tells of itself, in answers, counts, documents and log lines."""

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from service.settings import Limits, Settings
from service.telemetry import configure_logging
from tests.integration.shell import LARGEST, OURS, TOKEN, Shell, events, log_lines


@pytest.fixture
def shell() -> Shell:
    return Shell(Settings(limits=Limits(largest_json=LARGEST)))


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    with log_lines() as written:
        yield written


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
    assert answer.json() == {"ready": True, "checks": {"database": True}, "workers": {}}


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
    client = Shell(Settings(token=TOKEN)).client(authorization=f"Bearer {TOKEN}")
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
