"""The life of a token: given out, used, ended at once, and what that means for who is at it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from ckptmerge.domain.token import Scope
from ckptmerge.storage.records import EventRecord
from ckptmerge.workflow.access_tokens import note_use
from tests.integration.access_place import ADMIN, Place
from tests.integration.whole_service import TOKEN


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def open_place(tmp_path: Path) -> Place:
    return Place(tmp_path, token=None)


def test_a_token_does_what_it_was_made_for(place: Place) -> None:
    made = place.make(name="worker", scopes=["trial"])
    assert made["token"].startswith("ckm_")
    assert not made["first"], "the settings' token was there"
    assert place.ask("GET", "/v1/runs", made["token"]).status_code == 200
    refused = place.ask("POST", "/v1/tokens", made["token"], json=ADMIN)
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/insufficient-scope")


def test_the_answer_that_holds_a_secret_is_kept_by_no_cache(place: Place) -> None:
    answer = place.ask("POST", "/v1/tokens", TOKEN, json=ADMIN)
    assert answer.headers["cache-control"] == "no-store"


def test_a_secret_is_shown_once_and_kept_nowhere(place: Place) -> None:
    made = place.make(**ADMIN)
    secret = made["token"].rpartition("_")[2]
    listed = place.ask("GET", "/v1/tokens", TOKEN).text
    audit = place.ask("GET", "/v1/audit", TOKEN).text
    digest = place.records()[0].grant.hash.hex
    assert made["id"] in listed
    for shown in (listed, audit):
        assert secret not in shown
        assert digest not in shown
    assert secret not in repr(place.records())


def test_a_revoked_token_ends_with_the_answer_that_says_so(place: Place) -> None:
    made = place.make(**ADMIN)
    assert place.ask("GET", "/v1/runs", made["token"]).status_code == 200
    ended = place.ask("DELETE", f"/v1/tokens/{made['id']}", TOKEN)
    assert (ended.status_code, ended.json()["state"]) == (200, "revoked")
    refused = place.ask("GET", "/v1/runs", made["token"])
    assert refused.status_code == 401
    assert "is revoked" in refused.json()["detail"]
    again = place.ask("DELETE", f"/v1/tokens/{made['id']}", TOKEN)
    assert again.json() == ended.json()


def test_a_token_expires_by_itself(place: Place) -> None:
    made = place.make(name="for a day", scopes=["read"], expires_in=86_400)
    place.time += 86_399
    assert place.ask("GET", "/v1/runs", made["token"]).status_code == 200
    place.time += 1
    refused = place.ask("GET", "/v1/runs", made["token"])
    assert refused.status_code == 401
    assert "is expired" in refused.json()["detail"]
    assert place.ask("GET", "/v1/tokens", TOKEN).json()["items"][0]["state"] == "expired"


def test_tokens_outlive_the_service(place: Place) -> None:
    kept, ended = place.make(name="kept", scopes=["read"]), place.make(**ADMIN)
    place.ask("DELETE", f"/v1/tokens/{ended['id']}", TOKEN)
    place.start()
    assert place.ask("GET", "/v1/runs", kept["token"]).status_code == 200
    assert place.ask("GET", "/v1/runs", ended["token"]).status_code == 401


def test_a_request_for_a_token_that_comes_twice_leaves_no_second_one(place: Place) -> None:
    place.make(**ADMIN)
    again = place.ask("POST", "/v1/tokens", TOKEN, json=ADMIN)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/name-taken")
    assert len(place.records()) == 1


def test_the_name_of_a_token_that_has_ended_is_free(place: Place) -> None:
    made = place.make(**ADMIN)
    place.ask("DELETE", f"/v1/tokens/{made['id']}", TOKEN)
    assert place.make(**ADMIN)["id"] != made["id"]


def test_tokens_are_listed_page_by_page(place: Place) -> None:
    for name in "abc":
        place.make(name=name, scopes=["read"])
    first = place.ask("GET", "/v1/tokens?limit=2", TOKEN).json()
    rest = place.ask("GET", f"/v1/tokens?limit=2&after={first['next']}", TOKEN).json()
    assert [item["name"] for item in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["next"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []}, {"scopes": ["write"]}, {"name": ""}, {"name": "x" * 101},
        {"expires_in": 0}, {"expires_in": -1}, {"expires_in": 10**12}, {"expires_in": True},
        {"token": "ckm_mine"},
    ],
)  # fmt: skip
def test_a_token_of_a_wrong_form_is_refused(place: Place, wrong: dict[str, Any]) -> None:
    assert place.ask("POST", "/v1/tokens", TOKEN, json={**ADMIN, **wrong}).status_code == 422
    assert place.records() == []


# --------------------------------------------------------------------------- the first token


def test_a_service_without_tokens_is_open_as_long_as_there_is_none(open_place: Place) -> None:
    assert open_place.ask("GET", "/v1/runs").status_code == 200
    made = open_place.make(None, **ADMIN)
    assert made["first"]
    assert open_place.ask("GET", "/v1/runs").status_code == 401
    assert open_place.ask("GET", "/healthz").status_code == 200
    assert open_place.ask("GET", "/v1/runs", made["token"]).status_code == 200
    assert not open_place.make(made["token"], name="other", scopes=["read"])["first"]


@pytest.mark.parametrize("scopes", [["read"], ["trial", "checkpoint:write"]])
def test_the_first_token_must_be_one_that_can_make_others(
    open_place: Place, scopes: list[str]
) -> None:
    answer = open_place.ask("POST", "/v1/tokens", json={"name": "a", "scopes": scopes})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-input")
    assert open_place.ask("GET", "/v1/runs").status_code == 200, "it is as open as it was"


def test_of_two_who_make_the_first_token_one_is_too_late(open_place: Place) -> None:
    """The gate let both in while the service was open."""
    access = open_place.app.state.access
    know, access.know = access.know, lambda _: None
    open_place.make(None, **ADMIN)
    late = open_place.ask("POST", "/v1/tokens", json={"name": "thief", "scopes": ["admin"]})
    access.know = know
    assert (late.status_code, late.json()["type"]) == (409, "/problems/refused")
    assert [record.name for record in open_place.records()] == ["me"]


def test_a_service_whose_last_token_has_ended_is_not_open_again(open_place: Place) -> None:
    made = open_place.make(None, **ADMIN)
    open_place.ask("DELETE", f"/v1/tokens/{made['id']}", made["token"])
    assert open_place.ask("GET", "/v1/runs").status_code == 401
    open_place.start()
    assert open_place.ask("GET", "/v1/runs").status_code == 401


def test_the_document_says_from_then_on_that_a_token_is_asked_for(open_place: Place) -> None:
    assert "security" not in open_place.ask("GET", "/openapi.json").json()
    made = open_place.make(None, **ADMIN)
    api = open_place.ask("GET", "/openapi.json", made["token"]).json()
    assert api["paths"]["/v1/tokens"]["post"]["security"] == [{"token": ["admin"]}]
    assert api["paths"]["/v1/runs"]["get"]["security"] == [{"token": ["read"]}]
    assert api["paths"]["/healthz"]["get"]["security"] == []
    put_blob = api["paths"]["/v1/blobs/sha256:{hexadecimal}"]["put"]["security"]
    assert put_blob == [{"token": ["checkpoint:write"]}, {"token": ["trial"]}]


def test_the_services_own_parts_go_on_when_it_is_closed(open_place: Place) -> None:
    lent = open_place.app.state.access.lend(
        "own-worker", Scope.TRIAL, key=open_place.app.state.service.new_id("k"), random=bytes
    )
    assert open_place.ask("GET", "/v1/runs", lent).status_code == 200
    made = open_place.make(None, **ADMIN)
    assert open_place.ask("GET", "/v1/runs", lent).status_code == 200
    for token in (lent, made["token"]):
        assert open_place.ask("GET", "/v1/audit", token).status_code == (
            403 if token == lent else 200
        )
    assert len(open_place.records()) == 1, "it is on no record"


# --------------------------------------------------------------------------- who is at it


class Stream:
    """A request that goes on: it can be fed, and shows what has come."""

    def __init__(self, place: Place, method: str, path: str, token: str, **headers: str) -> None:
        lines = {"host": "127.0.0.1", "authorization": f"Bearer {token}", **headers}
        self.scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": method,
            "path": path, "query_string": b"", "http_version": "1.1", "scheme": "http",
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in lines.items()],
        }  # fmt: skip
        self.app = place.app
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.heard: list[Message] = []
        self.more = asyncio.Event()

    async def _send(self, message: Message) -> None:
        self.heard.append(message)
        self.more.set()

    def begin(self) -> "asyncio.Task[None]":
        return asyncio.create_task(self.app(self.scope, self.inbox.get, self._send))

    async def answered(self) -> None:
        async with asyncio.timeout(10):
            await self.more.wait()

    @property
    def status(self) -> int:
        return self.heard[0]["status"]


def test_a_stream_of_events_ends_with_the_token(place: Place) -> None:
    made = place.make(**ADMIN)

    async def follow() -> Stream:
        stream = Stream(place, "GET", "/v1/events", made["token"])
        following = stream.begin()
        await stream.answered()
        assert stream.status == 200
        place.app.state.access.know([r for r in place.records() if r.id != made["id"]])
        with place.store.write() as unit:  # something that it must not hear of
            unit.insert(EventRecord(id="v_1", run="a", kind="seen", data={}, created=0.0))
        async with asyncio.timeout(10):
            await asyncio.wait([following])
        return stream

    stream = asyncio.run(follow())
    assert not [m for m in stream.heard if b"seen" in m.get("body", b"")]


def test_an_upload_ends_with_the_token_and_leaves_nothing(place: Place) -> None:
    made = place.make(name="trainer", scopes=["checkpoint:write"])

    async def upload() -> Stream:
        address = f"/v1/blobs/sha256:{'0' * 64}"
        stream = Stream(place, "PUT", address, made["token"], content_length="100")
        uploading = stream.begin()
        await stream.inbox.put({"type": "http.request", "body": b"x" * 50, "more_body": True})
        while not stream.inbox.empty():  # noqa: ASYNC110 - a queue that is read has no event
            await asyncio.sleep(0.01)
        place.app.state.access.know([])
        await stream.inbox.put({"type": "http.request", "body": b"x" * 50, "more_body": False})
        async with asyncio.timeout(10):
            await asyncio.wait([uploading])
        return stream

    place.make(name="another", scopes=["read"])
    stream = asyncio.run(upload())
    assert stream.status in {401, 422}
    assert list(place.app.state.service.blobs) == []


def test_a_worker_that_waits_for_work_gets_none_after_its_token_has_ended(place: Place) -> None:
    made = place.make(name="worker", scopes=["trial"])
    place.make(name="another", scopes=["read"])

    async def wait() -> Stream:
        body = b'{"worker": "w", "wait": 20}'
        stream = Stream(
            place, "POST", "/v1/leases", made["token"],
            content_length=str(len(body)), content_type="application/json",
        )  # fmt: skip
        waiting = stream.begin()
        await stream.inbox.put({"type": "http.request", "body": body, "more_body": False})
        state = place.app.state.service
        while not state.workers.count()["working"]:  # noqa: ASYNC110 - a roster has no event
            await asyncio.sleep(0.01)
        place.app.state.access.know([r for r in place.records() if r.id != made["id"]])
        async with asyncio.timeout(10):
            while not waiting.done():
                state.tell_workers()
                await asyncio.sleep(0.02)
        return stream

    assert asyncio.run(wait()).status == 401


# --------------------------------------------------------------------------- last used


def test_use_is_noted_to_the_hour_and_written_once_an_hour(place: Place) -> None:
    place.time = 7200.0
    made = place.make(name="reader", scopes=["read"])
    access = place.app.state.access
    for minutes in (5, 30, 59):
        place.time = 7200.0 + 60 * minutes
        place.ask("GET", "/v1/runs", made["token"])
    assert access.take_used() == {made["id"]: 7200.0}
    place.ask("GET", "/v1/runs", made["token"])
    assert access.take_used() == {}, "nothing new to write"
    place.time = 10_800.0
    place.ask("GET", "/v1/runs", made["token"])
    used = access.take_used()
    with place.store.write() as unit:
        note_use(unit, used)
    item = place.ask("GET", "/v1/tokens", TOKEN).json()["items"][0]
    assert item["used"] == "1970-01-01T03:00:00.000Z"


def test_a_use_that_was_refused_is_none(place: Place) -> None:
    made = place.make(name="reader", scopes=["read"])
    place.ask("GET", "/v1/tokens", made["token"])
    assert place.app.state.access.take_used() == {}
