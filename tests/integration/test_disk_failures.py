"""A disk that is full or fails: what clients are told, and that it is over when it is well."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from ckptmerge.errors import DiskFailedError, OutOfSpaceError
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.memory import MemoryStore
from tests.integration.blob_service import ADDRESS, CONTENT, OURS
from tests.integration.whole_service import TOKEN, whole_app


class Store(MemoryStore):
    """A store on a disk that can be told to fail."""

    failure: Exception | None = None

    @contextmanager
    def read(self) -> Iterator:
        if self.failure is not None:
            raise self.failure
        with super().read() as snapshot:
            yield snapshot

    @contextmanager
    def write(self) -> Iterator:
        with super().write() as unit:
            yield unit
            if self.failure is not None:
                raise self.failure


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def client(tmp_path: Path, store: Store) -> Iterator[TestClient]:
    blobs = FolderBlobStore(tmp_path / "blobs", reserve=0)
    app = whole_app(tmp_path, store, blobs)
    headers = {"authorization": f"Bearer {TOKEN}"}
    with TestClient(app, OURS, headers=headers, raise_server_exceptions=False) as client:
        yield client
    blobs.close()


def test_a_service_that_cannot_read_its_database_is_alive_and_not_ready(client, store) -> None:
    store.failure = DiskFailedError("the disk of ckptmerge.sqlite failed")
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/not-ready")
    assert [part["pointer"] for part in answer.json()["errors"]] == ["/checks/database"]
    store.failure = None
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (OutOfSpaceError("the disk of ckptmerge.sqlite is full"), 507, "out-of-space"),
        (DiskFailedError("the disk of ckptmerge.sqlite failed"), 503, "disk-failed"),
    ],
)
def test_what_cannot_be_recorded_is_not_acknowledged(client, store, failure, status, kind) -> None:
    store.failure = failure
    with capture_logs() as logs:
        answer = client.put(ADDRESS, content=CONTENT)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{kind}")
    assert answer.json()["detail"] == str(failure)
    assert str(failure) in [line.get("reason") for line in logs], "nobody else would hear of it"
    store.failure = None
    assert client.put(ADDRESS, content=CONTENT).is_success


def test_a_sync_that_fails_fails_the_upload_and_no_other(client, monkeypatch) -> None:
    real, calls = os.fsync, []

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    answer = client.put(ADDRESS, content=CONTENT)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/disk-failed")
    assert "Input/output error" in answer.json()["detail"]
    assert len(calls) == 1, "it must not be tried again"
    assert client.get(ADDRESS).status_code == 404
    assert client.put(ADDRESS, content=CONTENT).status_code == 201
    assert client.get(ADDRESS).content == CONTENT
