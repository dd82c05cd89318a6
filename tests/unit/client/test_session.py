"""A session repeats what may pass, and turns the rest into errors that say what to do."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ckptmerge.client.session import BrokenOffError, Patience, Session
from ckptmerge.errors import InvalidInputError, ServiceError

PROBLEM = {
    "type": "/problems/step-exists",
    "title": "The run has other bytes at this step",
    "status": 409,
    "detail": "step 900 has other bytes; ?attempt=next begins a new attempt",
    "request_id": "r17",
}
TOKEN = "secret-token"  # noqa: S105 - of this test


@pytest.fixture
def pauses() -> list[float]:
    """How long the session would have slept."""
    return []


@pytest.fixture
def session(scripted: Any, pauses: list[float]) -> Iterator[Session]:
    patience = Patience(attempts=3, first=1.0, longest=30.0)
    with Session(scripted.url, TOKEN, patience=patience, sleep=pauses.append) as made:
        yield made


def answer_problem(scripted: Any, status: int = 409, **headers: str) -> None:
    body = json.dumps({**PROBLEM, "status": status}).encode()
    scripted.answer(status, body, Content_Type="application/problem+json", **headers)


def test_a_problem_becomes_an_error_with_its_detail_and_kind(
    session: Session, scripted: Any
) -> None:
    answer_problem(scripted)
    with pytest.raises(ServiceError, match="attempt=next begins") as caught:
        session.json("POST", "/v1/x", {})
    assert (caught.value.status, caught.value.kind) == (409, "step-exists")
    assert "r17" in str(caught.value)


def test_a_refusal_is_not_repeated(session: Session, scripted: Any, pauses: list[float]) -> None:
    answer_problem(scripted)
    with pytest.raises(ServiceError):
        session.json("GET", "/v1/x")
    assert (len(scripted.seen), pauses) == (1, [])


def test_a_server_that_is_no_service_of_ours_is_said_to_be_none(
    session: Session, scripted: Any
) -> None:
    scripted.answer(404, b"<html>nginx</html>", Content_Type="text/html")
    with pytest.raises(ServiceError, match="check the address"):
        session.json("GET", "/v1/x")
    scripted.answer(200, b"<html>hello</html>", Content_Type="text/html")
    with pytest.raises(ServiceError, match="not JSON"):
        session.json("GET", "/v1/x")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says(
    session: Session, scripted: Any, pauses: list[float], status: int
) -> None:
    answer_problem(scripted, status, Retry_After="7")
    scripted.answer(200, b'{"a": 1}')
    assert session.json("GET", "/v1/x") == {"a": 1}
    assert pauses == [7.0]


def test_a_date_to_come_back_at_is_read_against_the_services_own_clock(
    session: Session, scripted: Any, pauses: list[float]
) -> None:
    answer_problem(
        scripted, 503,
        Date="Wed, 21 Oct 2015 07:28:00 GMT", Retry_After="Wed, 21 Oct 2015 07:28:09 GMT",
    )  # fmt: skip
    scripted.answer(204)
    assert session.json("GET", "/v1/x") is None
    assert pauses == [9.0]


def test_nobody_waits_longer_than_their_patience(
    session: Session, scripted: Any, pauses: list[float]
) -> None:
    answer_problem(scripted, 503, Retry_After="31")
    with pytest.raises(ServiceError) as caught:
        session.json("GET", "/v1/x")
    assert (caught.value.status, pauses) == (503, [])


def test_pauses_grow_and_end(session: Session, scripted: Any, pauses: list[float]) -> None:
    for _ in range(3):
        answer_problem(scripted, 503)
    with pytest.raises(ServiceError):
        session.json("GET", "/v1/x")
    assert len(pauses) == 2
    assert 0.5 <= pauses[0] <= 1.0 <= pauses[1] <= 2.0


def test_an_answer_that_was_lost_is_asked_for_again_under_the_same_key(
    session: Session, scripted: Any
) -> None:
    scripted.answers.append(None)
    scripted.answer(201, b"{}")
    scripted.answer(201, b"{}")
    session.json("POST", "/v1/x", {})
    session.json("POST", "/v1/x", {})
    first, again, other = scripted.headers("Idempotency-Key")
    assert first == again != other
    assert len(first) == 32


def test_a_token_is_sent_to_the_service_and_nowhere_else(
    session: Session, scripted: Any, elsewhere: Any
) -> None:
    scripted.answer(200, b"{}")
    session.json("GET", "/v1/x")
    elsewhere.answer(200, b"abc")
    with session.get(f"{elsewhere.url}/file", headers={}) as response:
        response.read()
    scripted.answer(307, Location=f"{elsewhere.url}/file")
    elsewhere.answer(200, b"abc")
    with session.get("/v1/file", headers={}) as response:
        response.read()
    assert scripted.headers("Authorization") == [f"Bearer {TOKEN}"] * 2
    assert elsewhere.headers("Authorization") == [None, None]


def test_every_request_says_who_asks(session: Session, scripted: Any) -> None:
    scripted.answer(200, b"{}")
    session.json("GET", "/v1/x")
    assert scripted.headers("User-Agent")[0].startswith("ckptmerge/")


def test_a_path_in_the_address_is_kept(scripted: Any) -> None:
    scripted.answer(200, b"{}")
    with Session(f"{scripted.url}/merge/") as session:
        session.json("GET", "/v1/x", params={"run": "a b"})
    assert scripted.seen[0][1] == "/merge/v1/x?run=a+b"


def test_a_body_that_breaks_off_says_so(session: Session, scripted: Any) -> None:
    scripted.answer(200, b"abc", Content_Length="9", Connection="close")
    with pytest.raises(BrokenOffError), session.get("/v1/x", headers={}) as response:
        response.read()


def test_whether_something_exists(session: Session, scripted: Any) -> None:
    scripted.answer(200)
    scripted.answer(404, Content_Type="application/problem+json")
    scripted.answer(401, Content_Type="application/problem+json")
    assert session.exists("/v1/x")
    assert not session.exists("/v1/x")
    with pytest.raises(ServiceError) as caught:
        session.exists("/v1/x")
    assert caught.value.status == 401


def test_a_service_that_is_away_is_named() -> None:
    patience = Patience(attempts=2, first=0.0)
    with (
        Session("http://127.0.0.1:9", patience=patience) as session,
        pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:9 .*ckptmerge serve") as caught,
    ):
        session.json("GET", "/v1/x")
    assert caught.value.status is None


def test_no_proxy_stands_between_us_and_our_own_machine(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    scripted.answer(200, b"{}")
    with Session(scripted.url, patience=Patience(attempts=1)) as session:
        assert session.json("GET", "/v1/x") == {}


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8117", "localhost", "ftp://host", "http://", "http://host/?a=1"]
)
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidInputError, match="http://127"):
        Session(url)


def test_secrets_that_cannot_be_are_refused_and_not_shown() -> None:
    with pytest.raises(InvalidInputError, match="token") as caught:
        Session("http://host", "hush\n")
    assert "hush" not in str(caught.value)
    with pytest.raises(InvalidInputError, match="password") as caught:
        Session("http://user:hush@host")
    assert "hush" not in str(caught.value)
