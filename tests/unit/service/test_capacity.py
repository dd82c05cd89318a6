"""Requests are counted by kind, and whoever is one too many is told when to come again."""

import asyncio

import pytest
from starlette.datastructures import Headers

from service.gate.capacity import Capacity
from service.gate.traffic import Traffic, traffic_of
from service.settings import Limits

RAW, JSON = "application/octet-stream", "application/json"
BOUNDS = Limits(uploads_at_once=2, downloads_at_once=2, waiting_at_once=2, requests_at_once=2)

KINDS = {
    ("PUT", "/v1/blobs/sha256:00", RAW): Traffic.UPLOAD,
    ("POST", "/v1/uploads", ""): Traffic.UPLOAD,
    ("PATCH", "/v1/uploads/u_1", "application/partial-upload"): Traffic.UPLOAD,
    ("PUT", "/v1/held-out-sets/web", JSON): Traffic.UPLOAD,
    ("POST", "/v1/runs/a/checkpoints", RAW): Traffic.UPLOAD,
    ("POST", "/v1/runs/a/checkpoints", JSON): Traffic.SMALL,
    ("PUT", "/v1/runs/a/files/config.json", RAW): Traffic.UPLOAD,
    ("HEAD", "/v1/uploads/u_1", ""): Traffic.SMALL,
    ("DELETE", "/v1/uploads/u_1", ""): Traffic.SMALL,
    ("GET", "/v1/blobs/sha256:00", ""): Traffic.DOWNLOAD,
    ("HEAD", "/v1/blobs/sha256:00", ""): Traffic.SMALL,
    ("GET", "/v1/artifacts/a_1/files/model.safetensors", ""): Traffic.DOWNLOAD,
    ("GET", "/v1/runs/a/checkpoints/100/files/model.safetensors", ""): Traffic.DOWNLOAD,
    ("GET", "/v1/runs/a/best", ""): Traffic.SMALL,
    ("GET", "/v1/held-out-sets/web", ""): Traffic.SMALL,
    ("POST", "/v1/leases", JSON): Traffic.WAITING,
    ("PUT", "/v1/leases/l_1", JSON): Traffic.SMALL,
    ("POST", "/v1/leases/l_1/outcome", JSON): Traffic.SMALL,
    ("GET", "/v1/events", ""): Traffic.WAITING,
    ("GET", "/", ""): Traffic.SMALL,
}


@pytest.mark.parametrize(("head", "kind"), KINDS.items())
def test_the_kind_of_a_request_is_told_by_its_head(
    head: tuple[str, str, str], kind: Traffic
) -> None:
    method, path, media_type = head
    scope = {"type": "http", "method": method, "path": path}
    assert traffic_of(scope, Headers({"content-type": media_type})) is kind


@pytest.mark.parametrize(
    ("length", "kind"),
    {
        "0": "SMALL",
        "1048576": "SMALL",
        "1048577": "UPLOAD",
        "x": "UPLOAD",
        "9" * 5000: "UPLOAD",
    }.items(),
)
def test_what_is_no_longer_than_a_message_is_no_upload(length: str, kind: str) -> None:
    scope = {"type": "http", "method": "PUT", "path": "/v1/blobs/sha256:00"}
    assert traffic_of(scope, Headers({"content-length": length})) is Traffic[kind]


@pytest.mark.parametrize("kind", Traffic)
def test_one_too_many_is_sent_away_until_another_is_done(kind: Traffic) -> None:
    capacity = Capacity(BOUNDS)
    with capacity.taken(kind):
        assert capacity.refusal(kind, "/v1") is None
        with capacity.taken(kind):
            refusal = capacity.refusal(kind, "/v1")
            assert refusal is not None
            assert (refusal.kind.status, refusal.kind.slug) == (503, "overloaded")
            assert int(refusal.headers["Retry-After"]) >= 1
            assert f"2 {kind} are being answered" in refusal.detail
        assert capacity.refusal(kind, "/v1") is None


def test_no_kind_keeps_out_another() -> None:
    capacity = Capacity(BOUNDS)
    with capacity.taken(Traffic.WAITING), capacity.taken(Traffic.WAITING):
        assert capacity.refusal(Traffic.WAITING, "/v1/leases") is not None
        for kind in (Traffic.UPLOAD, Traffic.DOWNLOAD, Traffic.SMALL):
            assert capacity.refusal(kind, "/v1") is None


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_whether_the_service_lives_is_always_answered(path: str) -> None:
    capacity = Capacity(BOUNDS)
    with capacity.taken(Traffic.SMALL), capacity.taken(Traffic.SMALL):
        assert capacity.refusal(Traffic.SMALL, "/v1/runs") is not None
        assert capacity.refusal(Traffic.SMALL, path) is None


def test_a_request_that_fails_is_counted_no_more() -> None:
    capacity = Capacity(BOUNDS)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), capacity.taken(Traffic.UPLOAD):
            _ = 1 / 0
    assert capacity.refusal(Traffic.UPLOAD, "/v1") is None


def test_before_the_end_nothing_is_begun_that_takes_long() -> None:
    capacity = Capacity(BOUNDS)
    capacity.drain()
    for kind in (Traffic.UPLOAD, Traffic.DOWNLOAD, Traffic.WAITING):
        refusal = capacity.refusal(kind, "/v1")
        assert refusal is not None
        assert (refusal.kind.slug, refusal.headers.keys()) == ("draining", {"Retry-After"})
    assert capacity.refusal(Traffic.SMALL, "/v1/leases/l_1/outcome") is None


@pytest.mark.parametrize("kind", [Traffic.UPLOAD, Traffic.DOWNLOAD])
def test_the_end_waits_for_files_that_are_on_their_way(kind: Traffic) -> None:
    async def play() -> None:
        capacity = Capacity(BOUNDS)
        await capacity.transferred()
        with capacity.taken(kind):
            with capacity.taken(Traffic.WAITING):
                waiting = asyncio.create_task(capacity.transferred())
                await asyncio.sleep(0.01)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(play())
