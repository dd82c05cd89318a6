"""Training never waits for the callback, never hears an error of it, and loses nothing by it."""

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from ckptmerge.client.session import Patience
from ckptmerge.errors import InvalidInputError
from ckptmerge.trainer import CheckpointMergeCallback

NOWHERE = "http://127.0.0.1:9"
QUICK = Patience(attempts=2, first=0.01)
DIGEST = f"sha256:{'0' * 64}"


@dataclass
class Receiver:
    """A service that takes everything, once it may."""

    url: str = ""
    open: Event = field(default_factory=Event)
    asked: Event = field(default_factory=Event)
    """Somebody has asked for something."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    posted: list[dict[str, object]] = field(default_factory=list)

    @property
    def steps(self) -> list[object]:
        return [posted["step"] for posted in self.posted]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    received = Receiver()
    received.open.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            received.asked.set()
            received.open.wait(10)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, answer = 201, b""
            match self.command:
                case "HEAD":
                    status = 200 if self.path in received.blobs else 404
                case "PUT":
                    received.blobs[self.path] = body
                case _:
                    received.posted.append(json.loads(body))
                    answer = json.dumps(registered(received.posted[-1])).encode()
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        # The names that the base class looks for.
        do_HEAD = do_PUT = do_POST = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield received
        received.open.set()
        server.shutdown()
        thread.join()


def registered(new: dict[str, object]) -> dict[str, object]:
    return {
        "id": "c_1", "run": "r", "attempt": 1, "step": new["step"], "tokens": new["tokens"],
        "digest": DIGEST, "content": DIGEST, "state": "incomplete", "missing": ["tokenizer"],
        "parameters": 1, "bytes": 1, "created": "2026-01-01T00:00:00Z", "files": [],
    }  # fmt: skip


def save(parent: Path, step: int) -> Path:
    folder = parent / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(f"weights {step}".encode() * 1000)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_service_that_is_away_neither_raises_nor_delays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = CheckpointMergeCallback(NOWHERE, run="r", patience=QUICK)
    began = time.monotonic()
    for step in (10, 20):
        callback.saved(save(tmp_path, step), step)
    assert time.monotonic() - began < 0.5
    callback.close(timeout=10)
    assert time.monotonic() - began < 5
    assert "step 10 was not sent" in caplog.text
    assert "step 20 was not sent" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-20"]


def test_a_trainer_may_delete_its_folder_at_once(tmp_path: Path, receiver: Receiver) -> None:
    receiver.open.clear()
    with CheckpointMergeCallback(receiver.url, run="r") as callback:
        folder = save(tmp_path, 10)
        callback.saved(folder, 10, tokens=4096)
        shutil.rmtree(folder)
        receiver.open.set()
    (posted,) = receiver.posted
    assert (posted["step"], posted["tokens"]) == (10, 4096)
    assert sorted(receiver.blobs.values()) == [b"weights 10" * 1000, b"{}"]
    assert list(tmp_path.iterdir()) == []


def test_weights_are_held_without_a_copy(tmp_path: Path, receiver: Receiver) -> None:
    receiver.open.clear()
    with CheckpointMergeCallback(receiver.url, run="r") as callback:
        folder = save(tmp_path, 10)
        callback.saved(folder, 10)
        assert (folder / "model.safetensors").stat().st_nlink == 2
        assert (folder / "config.json").stat().st_nlink == 1
        receiver.open.set()


def test_where_no_link_can_be_the_files_are_copied(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    hold = tmp_path / "elsewhere" / "hold"
    with CheckpointMergeCallback(receiver.url, run="r", hold=hold) as callback:
        folder = save(tmp_path, 10)
        callback.saved(folder, 10)
        shutil.rmtree(folder)
    assert receiver.steps == [10]
    assert list(hold.iterdir()) == []


def test_a_full_queue_lets_go_of_the_oldest_and_says_so(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.open.clear()
    callback = CheckpointMergeCallback(receiver.url, run="r", queue=1)
    callback.saved(save(tmp_path, 10), 10)
    assert receiver.asked.wait(10)  # the first is on its way, and waits no more
    for step in (20, 30, 40):
        callback.saved(save(tmp_path, step), step)
    receiver.open.set()
    callback.close()
    assert receiver.steps == [10, 40]
    dropped = [line for line in caplog.messages if "the queue is full" in line]
    assert ["step 20" in line or "step 30" in line for line in dropped] == [True, True]


def test_what_a_trainer_overwrites_is_not_sent_as_what_it_was(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.open.clear()
    with CheckpointMergeCallback(receiver.url, run="r") as callback:
        callback.saved(save(tmp_path, 10), 10)
        assert receiver.asked.wait(10)
        second = save(tmp_path, 20)
        callback.saved(second, 20)
        (second / "model.safetensors").write_bytes(b"weights 30" * 1000)
        receiver.open.set()
    assert receiver.steps == [10]
    assert "overwritten its files" in caplog.text


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {"SLURM_PROCID": "3"}])
def test_only_the_first_process_of_a_job_sends(
    tmp_path: Path, receiver: Receiver, variables: dict[str, str]
) -> None:
    with CheckpointMergeCallback(receiver.url, run="r", environ=variables) as callback:
        callback.saved(save(tmp_path, 10), 10)
    with CheckpointMergeCallback(
        receiver.url, run="r", environ={"RANK": "0", "SLURM_PROCID": "3"}
    ) as callback:
        callback.saved(save(tmp_path, 20), 20)
    assert receiver.steps == [20]


def test_what_is_no_checkpoint_is_a_warning(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointMergeCallback(receiver.url, run="r") as callback:
        callback.saved(tmp_path / "nothing", 10)
        callback.saved(save(tmp_path, 20), 20)
    assert receiver.steps == [20]
    assert "step 10 is not sent" in caplog.text
    assert "lacks tokenizer" in caplog.text
    levels = [record.levelno for record in caplog.records if record.name.startswith("ckpt")]
    assert max(levels) == logging.WARNING


def test_what_cannot_work_is_refused_before_training() -> None:
    with pytest.raises(InvalidInputError):
        CheckpointMergeCallback("127.0.0.1:8117", run="r")
    with pytest.raises(InvalidInputError, match="queue"):
        CheckpointMergeCallback(NOWHERE, run="r", queue=0)


def test_after_the_end_nothing_is_sent(tmp_path: Path, receiver: Receiver) -> None:
    callback = CheckpointMergeCallback(receiver.url, run="r")
    callback.close()
    callback.saved(save(tmp_path, 10), 10)
    callback.close()
    assert receiver.posted == []


def test_a_job_that_ends_without_a_word_still_sends(tmp_path: Path, receiver: Receiver) -> None:
    folder = save(tmp_path, 10)
    code = (
        "import sys; from ckptmerge.trainer import CheckpointMergeCallback\n"
        "CheckpointMergeCallback(sys.argv[1], run='r').saved(sys.argv[2], 10)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, receiver.url, str(folder)], check=True)
    assert receiver.steps == [10]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_forked_child_leaves_its_parents_files_alone(tmp_path: Path, receiver: Receiver) -> None:
    code = (
        "import os, sys; from ckptmerge.trainer import CheckpointMergeCallback\n"
        "callback = CheckpointMergeCallback(sys.argv[1], run='r')\n"
        "callback.saved(sys.argv[2], 10)\n"
        "if os.fork() == 0: sys.exit()\n"
        "assert os.wait()[1] == 0\n"
        "callback.close()"
    )
    receiver.open.clear()
    folder = save(tmp_path, 10)
    job = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, receiver.url, str(folder)])
    assert receiver.asked.wait(10)
    shutil.rmtree(folder)
    time.sleep(0.2)
    receiver.open.set()
    assert job.wait(20) == 0
    assert receiver.steps == [10]
