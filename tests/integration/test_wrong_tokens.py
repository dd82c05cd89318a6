"""Tokens that are wrong: how many are heard, from where, and who is let in meanwhile."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests.integration.access_place import OURS, Place
from tests.integration.whole_service import TOKEN


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def attempts(place: Place, address: str, tokens: list[str]) -> list[int]:
    """Try tokens from an address, as a proxy on this machine says it."""
    app = ProxyHeadersMiddleware(place.app, trusted_hosts="127.0.0.1")
    client = TestClient(app, base_url=OURS, client=("127.0.0.1", 5000))
    return [
        client.get(
            "/v1/runs", headers={"authorization": f"Bearer {token}", "x-forwarded-for": address}
        ).status_code
        for token in tokens
    ]


def test_ten_wrong_tokens_a_minute_and_then_a_pause(place: Place) -> None:
    assert attempts(place, "192.0.2.1", ["wrong"] * 12) == [401] * 10 + [429] * 2
    answer = place.ask("GET", "/v1/runs", TOKEN)
    assert answer.status_code == 200, "this comes from another address"


def test_whoever_is_told_to_wait_is_told_how_long(tmp_path: Path) -> None:
    place = Place(tmp_path, wrong_tokens=1)
    place.ask("GET", "/v1/runs", "wrong")
    refused = place.ask("GET", "/v1/runs", "wrong")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert refused.json()["type"] == "/problems/too-many-requests"


def test_the_token_that_a_person_chose_cannot_be_guessed_meanwhile(place: Place) -> None:
    attempts(place, "192.0.2.1", ["wrong"] * 10)
    assert attempts(place, "192.0.2.1", [TOKEN]) == [429], "it is not even looked at"
    assert attempts(place, "192.0.2.2", [TOKEN]) == [200]


def test_a_token_that_was_given_out_is_let_in_from_anywhere(place: Place) -> None:
    """A worker must not stand still because another program of its machine is set up wrongly."""
    made = place.make(name="worker", scopes=["trial"])
    attempts(place, "192.0.2.1", ["wrong"] * 10)
    assert attempts(place, "192.0.2.1", [made["token"]]) == [200]


def test_who_brings_no_token_or_one_that_has_ended_has_guessed_nothing(place: Place) -> None:
    made = place.make(name="old", scopes=["read"], expires_in=1)
    place.time += 2
    assert attempts(place, "192.0.2.1", [made["token"]] * 12) == [401] * 12
    assert {place.ask("GET", "/v1/runs").status_code for _ in range(12)} == {401}


def test_a_forwarded_address_is_believed_of_a_proxy_on_this_machine_alone(place: Place) -> None:
    client = TestClient(
        ProxyHeadersMiddleware(place.app, trusted_hosts="127.0.0.1"),
        base_url=OURS, client=("192.0.2.9", 5000),
    )  # fmt: skip
    statuses = [
        client.get(
            "/v1/runs",
            headers={"authorization": "Bearer wrong", "x-forwarded-for": f"10.0.0.{number}"},
        ).status_code
        for number in range(11)
    ]
    assert statuses == [401] * 10 + [429]
