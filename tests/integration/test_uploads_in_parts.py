"""Uploads in parts over HTTP: what is promised is kept, what is refused leaves nothing."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.types import Message

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import put, read
from tests.integration.upload_service import AGE, UploadService, announcing, appending

CONTENT = bytes(number % 251 for number in range(1000))
DIGEST = Digest.of_bytes(CONTENT)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UploadService]:
    made = UploadService(tmp_path / "blobs")
    yield made
    made.close()


# ------------------------------------------------------------------------------- what goes right


def test_bytes_that_come_in_parts_are_a_blob_once_the_last_has_come(service) -> None:
    address = service.create(CONTENT)
    for start, end in ((0, 400), (400, 401), (401, 1000)):
        assert service.blobs.size(DIGEST) is None
        answer = service.append(address, CONTENT[start:end], start, last=end == 1000)
        assert answer.headers["upload-offset"] == str(end)
        assert answer.headers["upload-complete"] == ("?1" if end == 1000 else "?0")
        assert answer.status_code == (201 if end == 1000 else 204)
    assert answer.headers["location"] == f"/v1/blobs/{DIGEST}"
    assert read(service.blobs, DIGEST) == CONTENT
    assert service.recorded() == [DIGEST.hex]
    assert list(service.blobs.partials) == []


def test_a_new_upload_says_where_it_is_and_what_its_limits_are(service) -> None:
    answer = service.client.post("/v1/uploads", headers=announcing(CONTENT))
    assert answer.status_code == 201
    assert len(answer.headers["location"].removeprefix("/v1/uploads/u_")) * 4 == 128
    assert answer.headers["upload-limit"] == f"max-size={2**40}, max-age={int(AGE)}"
    assert service.create(CONTENT) != answer.headers["location"]


def test_an_upload_says_how_far_it_has_come_and_that_nobody_should_store_that(service) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT[:10], 0)
    service.time += 60
    answer = service.client.head(address)
    assert answer.status_code == 204
    named = ("upload-offset", "upload-complete", "upload-length", "cache-control", "upload-limit")
    assert [answer.headers[name] for name in named] == [
        "10", "?0", "1000", "no-store", f"max-size={2**40}, max-age={int(AGE) - 60}",
    ]  # fmt: skip


def test_an_upload_is_completed_by_an_append_of_nothing_too(service) -> None:
    address = service.create(CONTENT)
    assert service.append(address, CONTENT, 0).headers["upload-complete"] == "?0"
    assert service.blobs.size(DIGEST) is None
    assert service.append(address, b"", 1000, last=True).status_code == 201
    assert read(service.blobs, DIGEST) == CONTENT


def test_nothing_can_be_uploaded_as_well(service) -> None:
    address = service.create(b"")
    assert service.append(address, b"", 0, last=True).status_code == 201
    assert list(service.blobs) == [Digest.of_bytes(b"")]


def test_a_blob_that_is_there_already_is_no_obstacle(service) -> None:
    put(service.blobs, CONTENT)
    assert service.append(service.create(CONTENT), CONTENT, 0, last=True).status_code == 201
    assert read(service.blobs, DIGEST) == CONTENT


def test_a_completed_upload_says_so_to_whoever_did_not_hear_it(service) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT, 0, last=True)
    asked = service.client.head(address)
    again = service.append(address, CONTENT, 0, last=True)
    more = service.append(address, b"more", 1000)
    empty = service.append(address, b"", 1000, last=True)
    assert [answer.status_code for answer in (asked, again, more, empty)] == [204, 409, 400, 410]
    for answer in (asked, again, empty):
        assert answer.headers["upload-complete"] == "?1"
        assert answer.headers["location"] == f"/v1/blobs/{DIGEST}"
    assert read(service.blobs, DIGEST) == CONTENT


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("offset", [0, 9, 11, 1000, 10**15 - 1])
def test_an_append_somewhere_else_is_told_where_the_upload_goes_on(service, offset: int) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT[:10], 0)
    answer = service.append(address, b"x", offset)
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/mismatching-upload-offset"
    assert answer.headers["upload-offset"] == "10"
    assert answer.headers["upload-complete"] == "?0"
    assert service.append(address, CONTENT[10:], 10, last=True).status_code == 201


@pytest.mark.parametrize(
    ("content", "last"), [(CONTENT[10:] + b"x", True), (CONTENT, False), (CONTENT[10:999], True)]
)
def test_an_append_that_contradicts_the_length_is_refused(
    service, content: bytes, last: bool
) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT[:10], 0)
    answer = service.append(address, content, 10, last=last)
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/inconsistent-upload-length"
    assert service.offset(address) == 10


def test_bytes_of_another_digest_leave_nothing(service) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT[:10], 0)
    answer = service.append(address, CONTENT[10:-1] + b"x", 10, last=True)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/digest-mismatch")
    assert service.holds_nothing()
    assert service.client.head(address).status_code == 404


def test_an_upload_that_is_given_up_leaves_nothing(service) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT[:10], 0)
    assert service.client.delete(address).status_code == 204
    assert service.holds_nothing()
    assert service.client.delete(address).status_code == 404


def test_giving_up_a_completed_upload_leaves_its_blob(service) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT, 0, last=True)
    assert service.client.delete(address).status_code == 204
    assert read(service.blobs, DIGEST) == CONTENT


def test_an_upload_that_nobody_began_is_not_there(service) -> None:
    address = "/v1/uploads/u_" + "0" * 32
    assert service.client.head(address).status_code == 404
    assert service.append(address, b"x", 0).status_code == 404
    assert service.client.delete(address).status_code == 404
    assert service.client.head("/v1/uploads/..%2f..%2fx").status_code in {404, 422}


def test_an_upload_is_gone_when_its_time_is_over(service) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT[:10], 0)
    service.time += AGE - 1
    assert service.expire() == 0
    assert service.offset(address) == 10
    service.time += 1
    assert service.client.head(address).status_code == 404
    assert service.append(address, CONTENT[10:], 10, last=True).status_code == 404
    assert service.expire() == 1
    assert service.holds_nothing()


def test_bytes_that_belong_to_no_upload_are_removed(service) -> None:
    address = service.create(CONTENT)
    service.blobs.partials.create("u_left", room=0)
    assert service.expire() == 0
    assert list(service.blobs.partials) == [address.rpartition("/")[2]]


def test_only_so_many_uploads_are_under_way_at_once(tmp_path: Path) -> None:
    service = UploadService(tmp_path / "blobs", open_uploads=2)
    first = service.create(CONTENT)
    service.create(CONTENT)
    refused = service.client.post("/v1/uploads", headers=announcing(CONTENT))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "20")
    service.append(first, CONTENT, 0, last=True)
    service.create(CONTENT)
    service.close()


def test_uploads_under_way_count_as_if_they_were_there_already(service, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1500}))
    address = service.create(CONTENT)
    refused = service.client.post("/v1/uploads", headers=announcing(CONTENT))
    assert (refused.status_code, refused.json()["type"]) == (507, "/problems/out-of-space")
    assert len(service.uploads()) == len(list(service.blobs.partials)) == 1
    service.append(address, CONTENT[:500], 0)
    service.create(CONTENT)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Upload-Complete": "?1"}, 422),
        ({"Upload-Complete": "yes"}, 422),
        ({"Upload-Length": "-1"}, 422),
        ({"Upload-Length": "1e3"}, 422),
        ({"Upload-Length": "9" * 16}, 422),
        ({"Upload-Length": str(2**40 + 1)}, 413),
        ({"Repr-Digest": "md5=:AAAA:"}, 422),
        ({"Repr-Digest": "sha-256=:AAAA:"}, 422),
    ],
)
def test_an_upload_that_cannot_be_is_not_begun(service, changed, status: int) -> None:
    answer = service.client.post("/v1/uploads", headers={**announcing(CONTENT), **changed})
    assert answer.status_code == status
    assert ("upload-limit" in answer.headers) == (status == 413)
    assert service.holds_nothing()


@pytest.mark.parametrize("name", ["Upload-Complete", "Upload-Length", "Repr-Digest"])
def test_an_upload_is_not_begun_without_saying_of_what(service, name: str) -> None:
    headers = announcing(CONTENT)
    del headers[name]
    assert service.client.post("/v1/uploads", headers=headers).status_code == 422


def test_an_upload_does_not_begin_with_bytes(service) -> None:
    answer = service.client.post("/v1/uploads", content=b"x", headers=announcing(CONTENT))
    assert (answer.status_code, service.holds_nothing()) == (422, True)


def test_an_append_is_of_its_own_media_type_and_of_a_known_length(service) -> None:
    address = service.create(CONTENT)
    other = service.append(address, b"x", 0, **{"Content-Type": "application/octet-stream"})
    assert other.status_code == 415
    unknown = service.client.patch(address, content=iter([b"x"]), headers=appending(0))
    assert unknown.status_code == 411
    assert service.offset(address) == 0


# ----------------------------------------------------------------------- what is lost is said so


def test_an_upload_goes_on_after_a_restart(service) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT[:600], 0)
    service.restart()
    assert service.offset(address) == 600
    assert service.append(address, CONTENT[600:], 600, last=True).status_code == 201
    assert read(service.blobs, DIGEST) == CONTENT


def test_bytes_that_are_not_there_any_more_end_the_upload(service) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT[:600], 0)
    service.restart()
    [file] = (service.root / "partial").iterdir()
    file.write_bytes(CONTENT[:599])
    assert service.append(address, CONTENT[600:], 600, last=True).status_code == 404
    assert service.client.head(address).status_code == 404
    assert service.holds_nothing()


def test_an_upload_killed_between_its_blob_and_its_record_cannot_change_the_blob(service) -> None:
    address = service.create(CONTENT)
    service.append(address, CONTENT[:600], 0)
    [file] = (service.root / "partial").iterdir()
    with file.open("ab") as tail:
        tail.write(CONTENT[600:])
    place = service.root / "sha256" / DIGEST.hex[:2] / DIGEST.hex
    place.parent.mkdir()
    place.hardlink_to(file)
    service.restart()
    assert service.append(address, b"x" * 400, 600, last=True).status_code == 404
    assert read(service.blobs, DIGEST) == CONTENT


# -------------------------------------------------------------------- requests at the same time


class Sender:
    """An append over ASGI whose body comes when it is told to."""

    def __init__(self, address: str, offset: int, size: int, *, last: bool = False) -> None:
        self.scope = {
            "type": "http", "http_version": "1.1", "method": "PATCH", "path": address,
            "raw_path": address.encode(), "query_string": b"", "scheme": "http",
            "server": ("127.0.0.1", 8117), "client": ("127.0.0.1", 1), "root_path": "",
            "headers": [
                (b"host", b"127.0.0.1:8117"), (b"content-length", str(size).encode()),
                *(
                    (name.lower().encode(), value.encode())
                    for name, value in appending(offset, last=last).items()
                ),
            ],
        }  # fmt: skip
        self.body: asyncio.Queue[Message] = asyncio.Queue()
        self.heard: list[Message] = []

    def say(self, content: bytes, *, more: bool = True) -> None:
        self.body.put_nowait({"type": "http.request", "body": content, "more_body": more})

    def leave(self) -> None:
        self.body.put_nowait({"type": "http.disconnect"})

    async def send(self, message: Message) -> None:
        self.heard.append(message)

    async def run(self, app: Callable) -> None:
        await app(self.scope, self.body.get, self.send)

    @property
    def status(self) -> int | None:
        return self.heard[0]["status"] if self.heard else None

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.heard[0]["headers"])


def test_what_came_before_a_cut_is_kept(service) -> None:
    address = service.create(CONTENT)
    sender = Sender(address, 0, 1000, last=True)
    sender.say(CONTENT[:300])
    sender.say(CONTENT[300:700])
    sender.leave()
    asyncio.run(sender.run(service.app))
    assert sender.status is None
    assert service.offset(address) == 700
    assert service.append(address, CONTENT[700:], 700, last=True).status_code == 201
    assert read(service.blobs, DIGEST) == CONTENT


def test_what_came_before_a_client_fell_silent_is_kept(tmp_path) -> None:
    service = UploadService(tmp_path / "impatient", silence_seconds=0.05)
    address = service.create(CONTENT)
    sender = Sender(address, 0, 1000)
    sender.say(CONTENT[:300])
    asyncio.run(sender.run(service.app))
    assert sender.status == 408
    assert service.offset(address) == 300
    service.close()


def test_of_two_appends_at_one_place_exactly_one_counts(service) -> None:
    address = service.create(CONTENT)
    one, other = (Sender(address, 0, 1000, last=True) for _ in range(2))

    async def both() -> None:
        running = [asyncio.create_task(sender.run(service.app)) for sender in (one, other)]
        for start in range(0, 1000, 100):
            for sender in (one, other):
                sender.say(CONTENT[start : start + 100], more=start < 900)
            await asyncio.sleep(0.01)
        await asyncio.gather(*running)

    asyncio.run(both())
    assert sorted([one.status, other.status]) == [201, 409]
    assert read(service.blobs, DIGEST) == CONTENT


@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
def test_whoever_asks_ends_an_append_that_is_going_on(service, method: str) -> None:
    """A client whose line was cut comes back before the service has seen the cut."""
    address = service.create(CONTENT)
    sender = Sender(address, 0, 1000, last=True)

    asking = Sender(address, 0, 0)
    asking.scope["method"] = method
    asking.scope["headers"] = [(b"host", b"127.0.0.1:8117")]
    asking.say(b"", more=False)

    async def both() -> None:
        running = asyncio.create_task(sender.run(service.app))
        sender.say(CONTENT[:300])
        await asyncio.sleep(0.2)
        await asyncio.wait_for(asking.run(service.app), 5)
        await running

    asyncio.run(both())
    assert asking.status == 204
    if method == "HEAD":
        assert sender.status == 409
        assert sender.headers[b"upload-offset"] == asking.headers[b"upload-offset"] == b"300"
        assert service.append(address, CONTENT[300:], 300, last=True).status_code == 201
    else:
        assert service.holds_nothing()
