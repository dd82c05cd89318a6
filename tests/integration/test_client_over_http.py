"""The client against a real HTTP server, over connections that break."""

import hashlib
import json
import random
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import uvicorn
from fastapi import FastAPI, Request, Response
from typer.testing import CliRunner

from ckptmerge.cli import remote
from ckptmerge.client.best import BestOfRun
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
from ckptmerge.wire.best import Best
from ckptmerge.wire.checkpoints import CheckpointResource, NewCheckpoint
from ckptmerge.wire.resource import File

CONTENT = random.Random(0).randbytes(3_000_000)  # noqa: S311 - any bytes will do
DIGEST = Digest.of_bytes(CONTENT)
QUICK = Patience(attempts=3, first=0.001, longest=0.01)
RUN = "olmo-1b"


@dataclass
class Service:
    """Blobs and checkpoints in dictionaries, and what went over the line."""

    url: str = ""
    ranges: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    wrong: dict[str, bytes] = field(default_factory=dict)
    """What is served in place of a blob, by a service that is broken."""
    checkpoints: dict[tuple[int, int], CheckpointResource] = field(default_factory=dict)
    puts: int = 0
    gets: list[str | None] = field(default_factory=list)
    """The Range of every GET of a blob."""

    def app(self) -> FastAPI:
        app = FastAPI()
        app.head("/v1/blobs/{name}")(self._head_blob)
        app.put("/v1/blobs/{name}")(self._put_blob)
        app.get("/v1/blobs/{name}")(self._get_blob)
        app.post("/v1/runs/{run}/checkpoints")(self._register)
        app.get("/v1/runs/{run}/best")(self._best)
        app.get("/v1/studies")(self._studies)
        return app

    def add(self, content: bytes) -> str:
        digest = str(Digest.of_bytes(content))
        self.blobs[digest] = content
        return f"/v1/blobs/{digest}"

    async def _head_blob(self, name: str) -> Response:
        return Response(status_code=200 if name in self.blobs else 404)

    async def _put_blob(self, name: str, request: Request) -> Response:
        self.puts += 1
        content = await request.body()
        if str(Digest.of_bytes(content)) != name:
            return problem(422, "digest-mismatch", "the bytes are not those of the address")
        known = name in self.blobs
        self.blobs[name] = content
        return Response(status_code=200 if known else 201)

    async def _get_blob(self, name: str, request: Request) -> Response:
        span = request.headers.get("range")
        self.gets.append(span)
        if name not in self.blobs:
            return problem(404, "missing", f"there is no blob {name}")
        content = self.wrong.get(name, self.blobs[name])
        tag = f'"{name.removeprefix("sha256:")}"'
        headers = {"ETag": tag}
        if span is None or not self.ranges or request.headers.get("if-range") not in {None, tag}:
            return Response(content, headers=headers)
        start = int(span.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return problem(416, "range-not-satisfiable", "nothing lies there")
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Response(content[start:], 206, headers)

    async def _register(self, run: str, new: NewCheckpoint, attempt: str | None = None) -> Response:
        number = max((a for a, _ in self.checkpoints), default=1) + (attempt == "next")
        files = [
            File(**ref.model_dump(), href=f"/v1/blobs/{ref.digest}") for ref in new.files or ()
        ]
        digest = str(Digest.of_json([[f.name, f.digest] for f in files]))
        known = self.checkpoints.get((number, new.step))
        if known is not None and known.digest != digest:
            return problem(409, "step-exists", "other bytes; ?attempt=next begins a new attempt")
        made = known or CheckpointResource(
            id=f"c_{len(self.checkpoints)}", run=run, attempt=number, step=new.step,
            tokens=new.tokens, digest=digest, content=digest, state="complete", missing=[],
            parameters=1, bytes=1, created="2026-01-01T00:00:00Z", files=files,
        )  # fmt: skip
        self.checkpoints[number, new.step] = made
        return Response(made.model_dump_json(), 200 if known else 201)

    async def _best(self, run: str) -> Response:
        if not self.checkpoints:
            return problem(404, "missing", f"run {run!r} has no complete checkpoint yet")
        newest = self.checkpoints[max(self.checkpoints)]
        return Response(best_of(newest).model_dump_json())

    async def _studies(self, after: str | None = None) -> dict[str, object]:
        names = ["s_3", "s_2", "s_1"]
        start = names.index(after) + 1 if after else 0
        return {
            "items": [study(names[start])], "next": names[start] if start < 2 else None,
        }  # fmt: skip


def problem(status: int, kind: str, detail: str) -> Response:
    content = {"type": f"/problems/{kind}", "title": kind, "status": status, "detail": detail}
    return Response(json.dumps(content), status, media_type="application/problem+json")


def best_of(newest: CheckpointResource) -> Best:
    return Best(
        run=newest.run, kind="checkpoint", promoted=False, reason="no study has been decided yet",
        artifact=None, digest=newest.digest, step=newest.step, tokens=newest.tokens, study=None,
        stopped="", weights=None, groups=None, score=None, baselines={}, gains=[],
        better_than_uniform=None, certificate=None, tests=[], passes=None, files=newest.files,
    )  # fmt: skip


def study(name: str) -> dict[str, object]:
    return {
        "id": name, "run": RUN, "era": 1, "state": "searching", "stopped": None,
        "checkpoints": ["c_1", "c_2"], "steps": [100, 200], "space": "pair", "lower": [0.0],
        "upper": [1.0], "budget": 24, "seed": 0, "dtype": "keep", "trials": 3, "observed": 2,
        "winner": None, "verdict": None, "created": "2026-01-01T00:00:00Z",
    }  # fmt: skip


@pytest.fixture(scope="module")
def listening() -> Iterator[Service]:
    service = Service()
    config = uvicorn.Config(service.app(), port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield service
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def service(listening: Service) -> Service:
    """The server with nothing on it."""
    listening.__init__(url=listening.url)
    return listening


@pytest.fixture
def session(service: Service) -> Iterator[Session]:
    with Session(service.url, patience=QUICK) as made:
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, patience=QUICK) as made:
        yield made


@dataclass
class Cutter:
    """A line to a server that is cut after so many bytes, so many times."""

    url: str
    cuts: int
    """Cuts still to be made."""
    after: int
    carried: int = 0
    lock: Lock = field(default_factory=Lock)

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        """Copy one direction; the cut resets both ends, as a line that fails does."""
        passed = 0
        with suppress(OSError):
            while block := source.recv(16_384):
                target.sendall(block)
                passed += len(block)
                with self.lock:
                    self.carried += len(block)
                    cut = passed >= self.after and self.cuts > 0
                    self.cuts -= cut
                if cut:
                    break
            else:
                target.shutdown(socket.SHUT_WR)
                return
            for end in (source, target):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_line(service: Service, *, cuts: int, after: int) -> Iterator[Cutter]:
    upstream = ("127.0.0.1", int(service.url.rpartition(":")[2]))
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(64) as pumps:
        cutter = Cutter(f"http://127.0.0.1:{listener.getsockname()[1]}", cuts, after)
        ends: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    far = socket.create_connection(upstream)
                    ends.extend((near, far))
                    pumps.submit(cutter.carry, near, far)
                    pumps.submit(cutter.carry, far, near)

        thread = Thread(target=accept, daemon=True)
        thread.start()
        yield cutter
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
    for end in ends:
        end.close()


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


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", CONTENT + b"?"], ids=["other", "more"])
def test_wrong_bytes_leave_nothing(
    service: Service, session: Session, tmp_path: Path, content: bytes
) -> None:
    href = service.add(CONTENT)
    service.wrong[str(DIGEST)] = content
    with pytest.raises(DigestMismatchError):
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
    best: BestOfRun = client.best(RUN)
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
    class Other:
        def json(self, *_: object, **__: object) -> object:
            return {"name": RUN, "surprise": 1}

    client._session.close()
    client._session = Other()  # type: ignore[assignment]
    with pytest.raises(ServiceError, match="same version"):
        client.run(RUN)
    client._session = Session("http://127.0.0.1:9")


# --------------------------------------------------------------------------- the command line


@pytest.fixture
def command() -> typer.Typer:
    app = typer.Typer()
    for verb in (remote.push, remote.best, remote.pull):
        app.command()(verb)
    app.add_typer(remote.study, name="study")
    return app


def test_the_verbs_push_show_and_pull(
    service: Service, command: typer.Typer, tmp_path: Path
) -> None:
    pushed = checkpoint(tmp_path / "step-50")

    def run(*arguments: str) -> Any:
        environment = {"CKPTMERGE_URL": service.url}
        done = CliRunner().invoke(
            command, [*arguments, "--json"], env=environment, catch_exceptions=False
        )
        return json.loads(done.stdout)

    assert run("push", str(pushed), "--run", RUN)["step"] == 50
    assert run("best", RUN)["reason"] == "no study has been decided yet"
    out = tmp_path / "out"
    assert run("pull", RUN, "--out", str(out))["out"] == str(out)
    assert hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest() == DIGEST.hex
    assert [item["id"] for item in run("study", "list")] == ["s_3", "s_2", "s_1"]
