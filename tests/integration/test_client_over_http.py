"""The client against a real HTTP server, over connections that break."""

import fcntl
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from ckptmerge.client.blobs import download, upload
from ckptmerge.client.client import Client
from ckptmerge.client.session import BrokenOffError, Patience, Session
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    InvalidInputError,
    OutOfSpaceError,
    OutputExistsError,
    ServiceError,
)
from tests.integration.loopback import Service, cut_line, serving

CONTENT = random.Random(0).randbytes(3_000_000)  # noqa: S311 - any bytes will do
DIGEST = Digest.of_bytes(CONTENT)
QUICK = Patience(attempts=3, first=0.001, longest=0.01)
RUN = "olmo-1b"


@pytest.fixture(scope="module")
def listening() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def service(listening: Service) -> Service:
    """The server with nothing on it."""
    listening.reset()
    return listening


@pytest.fixture
def session(service: Service) -> Iterator[Session]:
    with Session(service.url, patience=QUICK) as made:
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, patience=QUICK) as made:
        yield made


def checkpoint(folder: Path, content: bytes = CONTENT) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


# --------------------------------------------------------------------------- downloads


def test_a_download_that_is_cut_twenty_times_is_right_and_carries_little_twice(
    service: Service, tmp_path: Path
) -> None:
    href = service.add(CONTENT)
    counted: list[int] = []
    with (
        cut_line(service, cuts=20, after=100_000) as line,
        Session(line.url, patience=QUICK) as session,
    ):
        download(
            session, href, tmp_path / "file",
            size=len(CONTENT), digest=DIGEST, on_bytes=counted.append,
        )  # fmt: skip
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (line.cuts, sum(counted)) == (0, len(CONTENT))
    assert line.carried < 1.3 * len(CONTENT)


def test_a_download_goes_on_where_a_killed_process_left_it(
    service: Service, session: Session, tmp_path: Path
) -> None:
    href = service.add(CONTENT)
    (tmp_path / "file.part").write_bytes(CONTENT[:2_000_000])
    download(session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert service.gets == ["bytes=2000000-"]


def test_a_service_without_ranges_is_asked_for_everything(
    service: Service, session: Session, tmp_path: Path
) -> None:
    service.ranges = False
    href = service.add(CONTENT)
    (tmp_path / "file.part").write_bytes(CONTENT[:2_000_000])
    download(session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_parts_of_something_else_are_found_out_and_removed(
    service: Service, session: Session, tmp_path: Path
) -> None:
    href = service.add(CONTENT)
    (tmp_path / "file.part").write_bytes(b"?" * 2_000_000)
    with pytest.raises(DigestMismatchError, match="removed"):
        download(session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST)
    assert list(tmp_path.iterdir()) == []
    download(session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "said"),
    [(CONTENT[:-1] + b"?", "not the promised"), (CONTENT + b"?", "more than the 3,000,000 bytes")],
)
def test_wrong_bytes_leave_nothing(
    service: Service, session: Session, tmp_path: Path, content: bytes, said: str
) -> None:
    href = service.add(CONTENT)
    service.wrong[str(DIGEST)] = content
    with pytest.raises(DigestMismatchError, match=said):
        download(session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_stays_too_short_is_given_up(
    service: Service, session: Session, tmp_path: Path
) -> None:
    href = service.add(CONTENT)
    service.wrong[str(DIGEST)] = CONTENT[:-1]
    with pytest.raises(BrokenOffError, match=r"2,999,999 of 3,000,000 bytes"):
        download(session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST)
    assert not (tmp_path / "file").exists()
    assert len(service.gets) <= 2 * QUICK.attempts


def test_a_file_that_is_there_is_not_fetched_again(
    service: Service, session: Session, tmp_path: Path
) -> None:
    href = service.add(CONTENT)
    (tmp_path / "file").write_bytes(CONTENT)
    download(session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST)
    assert (service.gets, list(tmp_path.iterdir())) == ([], [tmp_path / "file"])


def test_of_several_who_want_a_file_one_fetches_it(
    service: Service, session: Session, tmp_path: Path
) -> None:
    href = service.add(CONTENT)
    with ThreadPoolExecutor(4) as readers:
        waiting = [
            readers.submit(
                download, session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST
            )
            for _ in range(4)
        ]
        for one in waiting:
            one.result()
    assert service.gets == [None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_who_waits_for_a_part_that_is_then_removed_begins_anew(
    service: Service, session: Session, tmp_path: Path
) -> None:
    href = service.add(CONTENT)
    part = tmp_path / "file.part"
    with part.open("wb") as held, ThreadPoolExecutor(1) as reader:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = reader.submit(
            download, session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST
        )
        time.sleep(0.1)
        part.unlink()
        fcntl.flock(held, fcntl.LOCK_UN)
        waiting.result(10)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_empty_file_is_a_file(service: Service, session: Session, tmp_path: Path) -> None:
    href = service.add(b"")
    download(session, href, tmp_path / "file", size=0, digest=Digest.of_bytes(b""))
    assert (tmp_path / "file").read_bytes() == b""


def test_a_disk_without_room_is_said_before_a_byte_comes(
    service: Service, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    href = service.add(CONTENT)
    full = SimpleNamespace(f_bavail=10, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda _: full)
    with pytest.raises(OutOfSpaceError, match="3,000,000"):
        download(session, href, tmp_path / "file", size=len(CONTENT), digest=DIGEST)
    assert (service.gets, list(tmp_path.iterdir())) == ([], [])


# --------------------------------------------------------------------------- uploads


def test_an_upload_that_is_cut_is_sent_again_whole(service: Service, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    counted: list[int] = []
    patience = Patience(attempts=21, first=0.001, longest=0.01)
    with (
        cut_line(service, cuts=20, after=200_000) as line,
        Session(line.url, patience=patience) as session,
    ):
        sent = upload(session, tmp_path / "model.safetensors", on_bytes=counted.append)
    assert line.cuts == 0
    assert (sent.name, sent.size, sent.digest) == ("model.safetensors", len(CONTENT), str(DIGEST))
    assert service.blobs == {str(DIGEST): CONTENT}
    assert sum(counted) == len(CONTENT)


def test_a_known_file_is_not_sent_again(service: Service, session: Session, tmp_path: Path) -> None:
    service.add(CONTENT)
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    counted: list[int] = []
    upload(session, tmp_path / "model.safetensors", on_bytes=counted.append)
    assert (service.puts, sum(counted)) == (0, len(CONTENT))


def test_a_file_that_cannot_be_read_is_refused(session: Session, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        upload(session, tmp_path / "nothing")


# --------------------------------------------------------------------------- checkpoints


def test_what_is_pushed_is_there_byte_for_byte_and_pushed_once(
    service: Service, client: Client, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "step-00050")
    known = client.push(folder, run=RUN, tokens=4096)
    assert (known.step, known.tokens) == (50, 4096)
    for file in known.files:
        assert service.blobs[file.digest] == (folder / file.name).read_bytes()
    again = client.push(folder, run=RUN)
    assert (again.id, service.puts) == (known.id, 2)


def test_other_bytes_at_a_step_are_refused_until_a_new_attempt_is_asked_for(
    client: Client, tmp_path: Path
) -> None:
    client.push(checkpoint(tmp_path / "first"), run=RUN, step=50)
    other = checkpoint(tmp_path / "second", CONTENT[::-1])
    with pytest.raises(ServiceError, match="attempt=next") as caught:
        client.push(other, run=RUN, step=50)
    assert (caught.value.status, caught.value.kind) == (409, "step-exists")
    assert client.push(other, run=RUN, step=50, attempt="next").attempt == 2


def test_a_checkpoint_that_does_not_tell_its_step_is_refused(
    service: Service, client: Client, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "latest")
    with pytest.raises(InvalidInputError, match="which training step"):
        client.push(folder, run=RUN)
    assert service.blobs == {}


def test_a_checkpoint_that_is_written_to_while_it_is_sent_is_not_registered(
    service: Service, client: Client, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "step-1")

    def overwrite(_: int) -> None:
        (folder / "model.safetensors").write_bytes(CONTENT[::-1])

    with pytest.raises(InvalidInputError):
        client.push(folder, run=RUN, on_bytes=overwrite)
    assert service.checkpoints == {}


# --------------------------------------------------------------------------- the best weights


def test_the_best_weights_become_a_folder_with_what_is_known_about_them(
    client: Client, tmp_path: Path
) -> None:
    pushed = checkpoint(tmp_path / "step-50")
    client.push(pushed, run=RUN)
    best = client.best(RUN)
    assert (best.answer.step, best.answer.promoted) == (50, False)
    counted: list[int] = []
    out = best.download(tmp_path / "new/out", on_bytes=counted.append)
    assert out == tmp_path / "new/out"
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (pushed / name).read_bytes()
    assert json.loads((out / "recipe.json").read_text())["best"]["step"] == 50
    assert len(list(out.iterdir())) == 3
    assert sum(counted) == best.size
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    with pytest.raises(OutputExistsError):
        best.download(tmp_path / "new/out")


def test_a_download_that_fails_shows_nothing_and_goes_on_from_there(
    service: Service, client: Client, tmp_path: Path
) -> None:
    client.push(checkpoint(tmp_path / "step-50"), run=RUN)
    best = client.best(RUN)
    weights = service.blobs.pop(str(DIGEST))
    with pytest.raises(ServiceError, match="no blob"):
        best.download(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    service.gets.clear()
    service.blobs[str(DIGEST)] = weights
    out = best.download(tmp_path / "out")
    assert (out / "model.safetensors").read_bytes() == weights
    assert len(service.gets) == 1  # config.json had come before


def test_a_run_without_weights_says_so(client: Client) -> None:
    with pytest.raises(ServiceError, match="no complete checkpoint yet") as caught:
        client.best(RUN)
    assert caught.value.kind == "missing"


def test_lists_are_read_page_by_page(client: Client) -> None:
    assert [item.id for item in client.studies(RUN)] == ["s_3", "s_2", "s_1"]


def test_an_answer_of_another_version_is_said_to_be_one(client: Client) -> None:
    with pytest.raises(ServiceError, match="same version"):
        client.run(RUN)
