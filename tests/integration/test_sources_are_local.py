"""A source is a folder of the service's own disks: no address is asked, nothing else is opened."""

import ctypes
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from starlette.testclient import TestClient

from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from service.app import create_app
from service.settings import Limits, Settings
from tests.integration.whole_service import believe
from tests.unit.workflow.conducted import World, propose

SOURCES = [
    "http://127.0.0.1:9/step-1", "https://127.0.0.1:9/step-1", "HTTP://127.0.0.1:9/",
    "http://localhost:9/step-1", "http://[::1]:9/", "http://[::ffff:127.0.0.1]:9/",
    "http://[::ffff:7f00:1]:9/", "http://2130706433:9/", "http://0x7f000001:9/",
    "http://0177.0.0.1:9/", "http://127.1:9/", "http://0:9/", "http://127.0.0.1.nip.io:9/",
    "http://user:secret@127.0.0.1:9/", "http://127.0.0.1:9#@{root}/step-1",
    "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest/",
    "http://metadata.google.internal/", "http://100.64.0.1/", "//127.0.0.1:9/step-1",
    "http:{root}/step-1", "http:/127.0.0.1:9/", "ftp://127.0.0.1:9/", "gopher://127.0.0.1:9/_x",
    "file:///etc/passwd", "file://{root}/step-1", "file:{root}/step-1", "file://localhost{root}",
    "s3://bucket/step-1", "gs://bucket/step-1", "az://container/step-1", "hf://org/model",
    "data:,x", "jar:file:///x!/y", "\\\\127.0.0.1\\share", "//127.0.0.1/share", "{root}@127.0.0.1",
    "redirect:http://127.0.0.1:9/", "ssh://127.0.0.1/x", "127.0.0.1:{root}/step-1",
    "{root}/../outside", "{root}/step-1/../../outside", "{root}/link", "{root}/link/model",
    "{root}/./../outside/.", "~/step-1", "$HOME/step-1", "step-1", "./step-1", "{root}x/step-1",
    "{root}/step-1\x00/../../outside", "\x00", "{root}/no-such-step", "/proc/self/root{outside}",
    "/dev/fd/0", "/proc/self/environ", "{outside}",
]  # fmt: skip

SOCKETS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen"}

_heard: list[tuple[str, Any]] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Hear what the interpreter does: files and sockets cannot be opened without its saying so."""
    if _heard is not None and event in {"open", "os.listdir", "os.scandir", *SOCKETS}:
        _heard.append((event, arguments[0]))


sys.addaudithook(_hear)  # for the rest of the process: it cannot be taken away


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any]]]:
    global _heard  # noqa: PLW0603 - a hook has no other way to know
    _heard = found = []
    yield found
    _heard = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a checkpoint and a link, and what lies beside it and must not be seen."""
    folder = tmp_path_factory.mktemp("sources").resolve()
    for place in ("root/step-1", "rootx/step-1", "outside"):
        (folder / place).mkdir(parents=True)
        (folder / place / "model.safetensors").write_bytes(save({"w": np.ones(4, np.float32)}))
        (folder / place / "config.json").write_text("{}")
        (folder / place / "tokenizer.json").write_text("{}")
    (folder / "root" / "link").symlink_to(folder / "outside")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    store, blobs = MemoryStore(), MemoryBlobStore()
    World(store=store, blobs=blobs)
    settings = Settings(data=folder, source_roots=(folder / "root",), limits=Limits(reserve=0))
    app = create_app(settings, store=store, blob_store=blobs, propose=propose, believe=believe)
    yield TestClient(app, base_url="http://127.0.0.1:8117")
    app.state.service.writer.shutdown()
    app.state.service.readers.shutdown()


def ask(client: TestClient, source: str) -> int:
    body = json.dumps({"step": 1, "source": source})
    headers = {"content-type": "application/json"}
    return client.post("/v1/runs/run/checkpoints", content=body, headers=headers).status_code


def reached(heard: list[tuple[str, Any]], root: Path) -> list[tuple[str, Any]]:
    """Return what was reached for that is neither the root's, nor the service's or Python's own.

    What is opened relative to an open folder has no place here; `Opened` sees that.
    """
    code = str(Path(__file__).parents[2])
    own = (f"{root}/", f"{tempfile.gettempdir()}/ckptmerge-", code, sys.prefix, sys.base_prefix)
    return [
        (event, what)
        for event, what in heard
        if event in SOCKETS or (str(what).startswith("/") and not f"{what}/".startswith(own))
    ]


class Opened:
    """Hears of everything that is opened in a folder, by whatever way (inotify(7))."""

    IN_OPEN = 0x20

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
        for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            assert libc.inotify_add_watch(self._descriptor, bytes(place), self.IN_OPEN) >= 0

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def anything(self) -> bool:
        try:
            return bool(os.read(self._descriptor, 4096))
        except BlockingIOError:
            return False


@pytest.mark.parametrize("source", SOURCES, ids=ascii)
def test_what_is_no_folder_beneath_a_root_is_refused_and_not_looked_at(
    client: TestClient, folder: Path, heard: list[tuple[str, Any]], source: str
) -> None:
    there = source.replace("{root}", str(folder / "root"))
    with Opened(folder / "outside") as one, Opened(folder / "rootx") as other:
        heard.clear()
        status = ask(client, there.replace("{outside}", str(folder / "outside")))
        assert status in {403, 422}
        assert not one.anything()
        assert not other.anything()
    assert reached(heard, folder / "root") == []


def test_a_folder_beneath_a_root_is_taken_and_the_hook_hears_it(
    client: TestClient, folder: Path, heard: list[tuple[str, Any]]
) -> None:
    assert ask(client, str(folder / "root" / "step-1")) == 201
    assert [w for e, w in heard if e == "open" and str(w).endswith("model.safetensors")]


def test_what_lies_outside_would_be_seen(folder: Path, heard: list[tuple[str, Any]]) -> None:
    with Opened(folder / "outside") as opened:
        assert not opened.anything()
        (folder / "outside" / "config.json").read_text()
        assert opened.anything()
    assert "open" in [event for event, _ in reached(heard, folder / "root")]
    with socket.socket() as line, pytest.raises(OSError, match="refused"):
        line.connect(("127.0.0.1", 9))
    assert "socket.connect" in [event for event, _ in reached(heard, folder / "root")]
