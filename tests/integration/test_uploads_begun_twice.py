"""An upload in parts begins once for each request, however often it is asked for, and has room."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ckptmerge.client import blobs, parts
from ckptmerge.client.session import Patience, Session
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import OutOfSpaceError
from ckptmerge.storage.folder import FolderBlobStore
from tests.integration.upload_service import UploadService, announcing
from tests.integration.whole_service import serving
from tests.torture.chaos_proxy import LossyLine

CONTENT = bytes(number % 251 for number in range(1000))
OTHER = CONTENT[::-1]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UploadService]:
    made = UploadService(tmp_path / "blobs", open_uploads=2)
    yield made
    made.close()


def begin(service: UploadService, content: bytes = CONTENT, **headers: str):
    return service.client.post(
        "/v1/uploads",
        headers={
            **announcing(content),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
    )


def test_the_same_request_again_is_answered_with_the_same_upload(service) -> None:
    first, again = (begin(service, Idempotency_Key="k1") for _ in range(2))
    assert [first.status_code, again.status_code] == [201, 200]
    assert first.headers["location"] == again.headers["location"]
    assert len(service.uploads()) == len(list(service.blobs.partials)) == 1


def test_an_upload_that_has_gone_on_is_still_the_same(service) -> None:
    address = begin(service, Idempotency_Key="k1").headers["location"]
    service.append(address, CONTENT[:600], 0)
    assert begin(service, Idempotency_Key="k1").headers["location"] == address
    assert service.offset(address) == 600
    assert service.append(address, CONTENT[600:], 600, last=True).status_code == 201


def test_one_more_than_may_be_under_way_is_not_one_more_where_it_is_the_same(service) -> None:
    begin(service, Idempotency_Key="k1")
    begin(service, Idempotency_Key="k2")
    assert begin(service, Idempotency_Key="k3").status_code == 429
    assert begin(service, Idempotency_Key="k2").status_code == 200


@pytest.mark.parametrize("keys", [("k1", "k2"), (None, None)], ids=["two keys", "no key"])
def test_other_requests_begin_other_uploads(service, keys) -> None:
    for key in keys:
        begin(service, **({} if key is None else {"Idempotency_Key": key}))
    assert len(service.uploads()) == 2


@pytest.mark.parametrize("other", [OTHER, CONTENT[:-1]], ids=["digest", "length"])
def test_a_key_that_came_with_another_upload_is_refused(service, other) -> None:
    begin(service, Idempotency_Key="k1")
    refused = begin(service, other, Idempotency_Key="k1")
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-input")
    assert len(service.uploads()) == 1


def test_a_creation_whose_answer_was_lost_leaves_nothing_behind(
    service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "WHOLE", 0)
    monkeypatch.setattr(parts, "PART", 300)
    file = tmp_path / "model.safetensors"
    file.write_bytes(Random(3).randbytes(1000))  # noqa: S311 - no secret
    lost: list[str] = []

    def first_creation(method: str, path: str) -> bool:
        lost.append(f"{method} {path}")
        return lost.count("POST /v1/uploads") == 1 and lost[-1] == "POST /v1/uploads"

    patience = Patience(first=0.001, longest=0.001)
    with (
        serving(service.app) as url,
        LossyLine(url, seed=1, lost=1.0, only=first_creation) as line,
        Session(line.url, patience=patience) as session,
    ):
        blobs.upload(session, file)
        assert line.lost == 1
    (record,) = service.uploads()
    assert record.upload.complete
    assert lost.count("POST /v1/uploads") == 2


# ------------------------------------------------------------------------------------------- room


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": count}))


def test_what_uploads_in_parts_were_promised_is_not_there_for_others(service, monkeypatch) -> None:
    free(monkeypatch, 1500)
    address = begin(service).headers["location"]
    small, large = OTHER[:500], OTHER[:501]
    refused = service.client.put(f"/v1/blobs/{Digest.of_bytes(large)}", content=large)
    assert (refused.status_code, refused.json()["type"]) == (507, "/problems/out-of-space")
    assert "1,000 that others were promised" in refused.json()["detail"]
    assert service.client.put(f"/v1/blobs/{Digest.of_bytes(small)}", content=small).is_success
    service.client.delete(address)
    assert service.client.put(f"/v1/blobs/{Digest.of_bytes(large)}", content=large).is_success


def test_what_is_being_written_is_counted_until_it_is_over(tmp_path, monkeypatch) -> None:
    """A writer's bytes are on the disk once they have come: only what is missing needs room."""
    free(monkeypatch, 1000)
    store = FolderBlobStore(tmp_path, reserve=0)

    def has_room_for(count: int) -> bool:
        try:
            with store.writer(size=count):
                return True
        except OutOfSpaceError:
            return False

    with store.writer(size=600) as writer:
        assert has_room_for(400)
        assert not has_room_for(401)
        writer.write(bytes(100))
        assert has_room_for(500)
        assert not has_room_for(501)
    assert has_room_for(1000)
    store.close()
