"""A large file comes in while the service is killed -9: each kill costs one part, and no more."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ckptmerge.client import blobs, parts
from ckptmerge.client.session import Patience, Session
from ckptmerge.domain.digest import Digest
from ckptmerge.storage.records import BlobRecord, UploadRecord
from ckptmerge.storage.sqlite import SqliteStore
from tests.e2e.running import RunningService

SIZE = blobs.WHOLE + 3 * parts.PART + 12_345

FLAT = 48 * 2**20
"""Bytes by which the service's memory may grow; the file is larger."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    held_out = tmp_path / "held-out.jsonl"
    lines = (json.dumps({"text": f"document {number}"}) for number in range(200))
    held_out.write_text("\n".join(lines))
    with RunningService(tmp_path, held_out, workers=0) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(Random(7).randbytes(SIZE))  # noqa: S311 - no secret
    return path


def memory(service: RunningService) -> int:
    """Return the most bytes that the service has had in memory."""
    assert service._process is not None
    status = Path(f"/proc/{service._process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_part_is_what_a_cut_may_cost() -> None:
    assert parts.PART == 8 * 2**20


def test_kills_between_appends_and_within_one_cost_a_part_each(service, file, monkeypatch) -> None:
    sent, appended = [], []
    real_blocks, real_tell = parts.blocks, Session.tell

    def killed_within(path, start, end, progress):
        for block in real_blocks(path, start, end, progress):
            sent.append(len(block))
            if len(sent) == 20:
                service.kill()
                service.start()
            yield block

    def killed_between(self, method, *given, **named):
        answer = real_tell(self, method, *given, **named)
        if method == "PATCH":
            appended.append(1)
            if len(appended) == 5:
                service.kill()
                service.start()
        return answer

    monkeypatch.setattr(parts, "blocks", killed_within)
    monkeypatch.setattr(Session, "tell", killed_between)
    with Session(service.url, patience=Patience(attempts=8)) as session:
        reference = blobs.upload(session, file)
    assert SIZE < sum(sent) <= SIZE + 2 * parts.PART
    with file.open("rb") as given:
        digest = Digest.of_bytes(given.read())
    assert reference.digest == str(digest)
    data = service.folder / "data"
    kept = data / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    assert kept.read_bytes() == file.read_bytes()
    assert list((data / "blobs" / "partial").iterdir()) == []
    service.stop()
    store = SqliteStore(data / "ckptmerge.sqlite")
    with store.read() as snapshot:
        assert snapshot.get(BlobRecord, digest.hex) is not None
        assert [record.state for record in snapshot.find(UploadRecord)] == ["complete"]
    store.close()


def test_an_append_of_any_size_is_never_held_in_memory(service, file, monkeypatch) -> None:
    monkeypatch.setattr(parts, "PART", SIZE)
    before = memory(service)
    with Session(service.url) as session:
        blobs.upload(session, file)
    assert memory(service) - before < FLAT
