"""The client sends a large file in parts, over a line that is cut at random, to a real server."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ckptmerge.client import blobs, parts
from ckptmerge.client.session import Patience, Session
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import ServiceError
from tests.integration import loopback
from tests.integration.loopback import Cutter, cut_line
from tests.integration.upload_service import UploadService
from tests.integration.whole_service import serving

PART = 2**18
"""The tests' files are smaller than users', and so are their parts."""

HEADS = 2**14
"""Bytes that heads of requests and answers may come to, a cut."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UploadService]:
    made = UploadService(tmp_path / "blobs")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART", PART)
    monkeypatch.setattr(blobs, "WHOLE", PART)
    monkeypatch.setattr(parts, "BLOCK", 2**15)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(Random(7).randbytes(40 * PART + 12_345))  # noqa: S311 - no secret
    return path


def session(url: str, *, attempts: int = 5) -> Session:
    return Session(url, timeout=10, patience=Patience(attempts=attempts, first=0.01))


class RandomCutter(Cutter):
    """A line that is cut after another number of bytes each time."""

    chance = Random(3)  # noqa: S311 - no secret

    @property
    def after(self) -> int:
        return self._after

    @after.setter
    def after(self, _: int) -> None:
        self._after = self.chance.randrange(1, 3 * PART)

    def carry(self, source, target) -> None:
        super().carry(source, target)
        self.after = 0


def test_each_of_twenty_cuts_costs_one_part_at_most(service, file, monkeypatch) -> None:
    monkeypatch.setattr(loopback, "Cutter", RandomCutter)
    told: list[int] = []
    with serving(service.app) as url:
        served = loopback.Service(url=url)
        with cut_line(served, cuts=20, after=0) as line, session(line.url) as asking:
            reference = blobs.upload(asking, file, on_bytes=told.append)
            assert line.cuts == 0
            assert line.carried <= file.stat().st_size + 20 * (PART + HEADS) + 60 * 1024
    digest = Digest.of_bytes(file.read_bytes())
    assert reference.digest == str(digest)
    assert service.recorded() == [digest.hex]
    assert sum(told) == file.stat().st_size
    assert service.blobs.path(digest).read_bytes() == file.read_bytes()


def test_a_small_file_goes_in_one_request(service, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"x" * PART)
    with serving(service.app) as url, session(url) as asking:
        blobs.upload(asking, path)
    assert service.uploads() == []
    assert len(service.recorded()) == 1


def test_a_large_file_goes_in_parts(service, file) -> None:
    with serving(service.app) as url, session(url) as asking:
        blobs.upload(asking, file)
    [record] = service.uploads()
    assert record.upload.complete


def test_a_service_that_takes_files_only_whole_gets_it_whole(file) -> None:
    with loopback.serving() as older, session(older.url) as asking:
        reference = blobs.upload(asking, file)
    assert older.puts == 1
    assert older.blobs[reference.digest] == file.read_bytes()


def test_an_upload_that_the_service_has_lost_is_sent_whole(service, file, monkeypatch) -> None:
    real, appends = parts._Upload._append, []

    def losing(upload: parts._Upload) -> None:
        appends.append(upload)
        if len(appends) == 3:
            service.time += 1e6
            service.expire()
        real(upload)

    monkeypatch.setattr(parts._Upload, "_append", losing)
    with serving(service.app) as url, session(url) as asking:
        reference = blobs.upload(asking, file)
    assert len(appends) == 3
    assert service.recorded() == [reference.digest.removeprefix("sha256:")]


def test_a_lost_answer_to_the_last_part_is_asked_for(service, file, monkeypatch) -> None:
    real = Session.tell

    def deaf(self, method, path, headers, *, body=None):
        answer = real(self, method, path, headers, body=body)
        if headers.get("Upload-Complete") == "?1":
            raise ServiceError("the line was cut")
        return answer

    monkeypatch.setattr(Session, "tell", deaf)
    with serving(service.app) as url, session(url) as asking:
        blobs.upload(asking, file)
    assert service.uploads()[0].upload.complete


def test_a_file_that_changes_while_it_is_sent_is_refused(service, file, monkeypatch) -> None:
    real = parts.blocks

    def changed(path, start, end, progress):
        for block in real(path, start, end, progress):
            yield block if start else bytes(len(block))

    monkeypatch.setattr(parts, "blocks", changed)
    with (
        serving(service.app) as url,
        session(url) as asking,
        pytest.raises(ServiceError, match="changed while they were sent"),
    ):
        blobs.upload(asking, file)
    assert service.holds_nothing()


def test_a_service_that_takes_no_more_is_given_up(service, file, monkeypatch) -> None:
    tried = []

    def refusing(_: object) -> None:
        tried.append(1)
        raise ServiceError("cut")

    monkeypatch.setattr(parts._Upload, "_append", refusing)
    with (
        serving(service.app) as url,
        session(url, attempts=3) as asking,
        pytest.raises(ServiceError, match="cut"),
    ):
        blobs.upload(asking, file)
    assert len(tried) == 3
