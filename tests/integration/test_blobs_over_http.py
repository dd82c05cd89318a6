"""Blobs over HTTP: how they are sent, whatever becomes of who asked for them."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from structlog.testing import capture_logs

from ckptmerge.storage.blobs import put
from ckptmerge.storage.folder import FolderReader
from service import downloads
from tests.integration.asgi_client import Client
from tests.integration.blob_service import (
    ADDRESS,
    CONTENT,
    DIGEST,
    OTHER,
    Service,
    opened,
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "blobs")
    yield made
    made.close()


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("stocked"))
    put(made.blobs, CONTENT)
    with made.client:  # one event loop for all rows
        yield made
    made.close()


@pytest.mark.parametrize("chunk", [1, 7, 333, 1000, 1001])
def test_the_size_of_chunks_does_not_show(
    service: Service, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(downloads, "CHUNK", chunk)
    put(service.blobs, CONTENT)
    assert service.client.get(ADDRESS).content == CONTENT
    part = service.client.get(ADDRESS, headers={"Range": "bytes=5-40"})
    assert part.content == CONTENT[5:41]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_that_is_not_there_is_a_problem(service: Service, method: str) -> None:
    for headers in ({}, {"If-None-Match": "*"}, {"If-Match": "*"}, {"Range": "bytes=0-1"}):
        answer = service.client.request(method, ADDRESS, headers=headers)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("filename", "given"),
    [
        ("model-1.safetensors", 'filename="model-1.safetensors"'),
        ("モ.json", "filename*=UTF-8''%E3%83%A2.json"),
        ('a"\r\nX: b', "filename*=UTF-8''a%22%0D%0AX%3A%20b"),
    ],
)
def test_any_name_can_be_given_and_none_escapes(
    stocked: Service, filename: str, given: str
) -> None:
    asked = Request({"type": "http", "method": "HEAD", "headers": []})
    answer = downloads.blob_response(
        asked, lambda: stocked.blobs.open(DIGEST), digest=DIGEST, filename=filename
    )
    assert answer.headers["content-disposition"] == f"attachment; {given}"


@pytest.mark.parametrize(
    "headers",
    [{}, {"range": "bytes=5-"}, {"range": "bytes=1000-"}, {"if_none_match": "*"},
     {"if_match": OTHER}],
)  # fmt: skip
@pytest.mark.parametrize("stays", [0, 3, 99])
def test_a_blob_is_closed_whatever_becomes_of_the_answer(
    stocked: Service, monkeypatch: pytest.MonkeyPatch, stays: int, headers: dict[str, str]
) -> None:
    """A client stays for so many messages: none, the first of ten chunks, or all there are."""
    monkeypatch.setattr(downloads, "CHUNK", 100)
    for method in ("GET", "HEAD"):
        before, client = len(opened()), Client()
        monkeypatch.setattr(client, "receive", client.stay_until(stays))
        client.ask(stocked.app, method, **headers)
        assert len(opened()) == before
        assert len(client.heard) < 6 or stays == 99


def test_a_blob_that_cannot_be_read_is_closed_too(
    stocked: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(FolderReader, "read", broken)
    before, client = len(opened()), Client()
    monkeypatch.setattr(client, "receive", client.stay_until(99))
    with capture_logs() as lines, pytest.raises(OSError, match="Input/output error"):
        client.ask(stocked.app, "GET")
    assert lines[0]["event"] == "request failed"
    assert len(opened()) == before


def test_every_operation_is_documented_under_a_name_of_its_own(service: Service) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (methods,) = get_openapi(title="", version="", routes=service.app.routes)["paths"].values()
    assert {name: method["operationId"] for name, method in methods.items()} == {
        "put": "put_blob", "get": "get_blob", "head": "head_blob",
    }  # fmt: skip
    assert {"200", "201", "408", "411", "413", "422", "507"} <= methods["put"]["responses"].keys()
    assert {"200", "206", "304", "404", "412", "416"} <= methods["get"]["responses"].keys()
