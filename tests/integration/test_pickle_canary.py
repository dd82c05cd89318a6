"""A pickle that makes a folder when it is loaded: handed in at every door, and never loaded."""

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.numpy import save

from ckptmerge.cli.main import run
from ckptmerge.client.client import Client
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import CkptmergeError, ModelLoadError
from ckptmerge.evaluation.models import load_model
from ckptmerge.evaluation.tokens import load_tokenizer
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.storage.blobs import read
from ckptmerge.wire.checkpoints import CheckpointResource
from ckptmerge.wire.resource import File
from service.app import create_app
from service.settings import Limits, Settings
from service.watcher import Watcher
from tests.integration.loopback import Service, serving
from tests.integration.whole_service import believe
from tests.unit.workflow.conducted import World, propose

RAW = {"Content-Type": "application/octet-stream"}
MODEL = save({"w": np.ones(8, np.float32)})


class Bomb:
    """Pickled as a call that makes a folder."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        import os

        return os.mkdir, (str(self._canary),)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "canary"
    yield place
    assert not place.exists(), "a pickle was loaded"


@pytest.fixture(params=["bare", "old", "of torch"])
def bomb(request: pytest.FixtureRequest, canary: Path, tmp_path: Path) -> bytes:
    """Three pickles that run code; a control shows of each that it does."""
    written = tmp_path / "bomb"
    if request.param == "of torch":
        torch.save({"w": Bomb(canary)}, written)
        torch.load(written, weights_only=False)  # noqa: TID251 - the control
    else:
        written.write_bytes(pickle.dumps(Bomb(canary), protocol=0 if request.param == "old" else 4))
        pickle.loads(written.read_bytes())  # noqa: S301 - the control
    assert canary.is_dir(), "the control: loading it makes the folder"
    canary.rmdir()
    return written.read_bytes()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[TestClient, World]]:
    world = World()
    app = create_app(
        Settings(data=tmp_path, source_roots=(tmp_path,), limits=Limits(reserve=0)),
        store=world.store, blob_store=world.blobs, propose=propose, believe=believe,
    )  # fmt: skip
    yield TestClient(app, base_url="http://127.0.0.1:8117"), world
    app.state.service.writer.shutdown()
    app.state.service.readers.shutdown()


@pytest.fixture(params=["pytorch_model.bin", "model.pt", "model.safetensors"])
def folder(request: pytest.FixtureRequest, bomb: bytes, tmp_path: Path) -> Path:
    """A checkpoint whose weights are a pickle."""
    made = tmp_path / "root" / "step-1"
    made.mkdir(parents=True)
    (made / request.param).write_bytes(bomb)
    (made / "config.json").write_text('{"model_type": "llama"}')
    (made / "tokenizer.json").write_text("{}")
    return made


def test_no_door_of_the_service_loads_it(
    door: tuple[TestClient, World], folder: Path, bomb: bytes
) -> None:
    http, world = door
    checkpoints = "/v1/runs/run/checkpoints"
    files = []
    for file in folder.iterdir():
        content = file.read_bytes()
        digest = str(Digest.of_bytes(content))
        assert http.put(f"/v1/blobs/{digest}", content=content).status_code == 201
        files.append({"name": file.name, "size": len(content), "digest": digest})
    answers = [
        http.post(f"{checkpoints}?step=1", content=bomb, headers=RAW),
        http.post(checkpoints, json={"step": 1, "files": files}),
        http.post(checkpoints, json={"step": 1, "source": str(folder)}),
        http.put("/v1/runs/run/files/config.json", content=bomb, headers=RAW),
        http.put("/v1/runs/run/files/tokenizer.json", content=bomb, headers=RAW),
        http.put("/v1/runs/run/files/pytorch_model.bin", content=bomb, headers=RAW),
        http.put("/v1/held-out-sets/new", content=bomb),
    ]
    # A pickle of protocol 0 is text, and nothing here reads a tokenizer.
    assert {answer.status_code for answer in answers} <= {422, 200}, [a.text for a in answers]
    assert [answer.status_code for answer in answers[:4]] == [422] * 4
    assert http.get(checkpoints).json()["items"] == []
    assert read(world.blobs, Digest.of_bytes(bomb)) == bomb, "bytes, and nothing else"


def test_no_watched_folder_hands_it_out(folder: Path) -> None:
    watcher = Watcher(folder.parent, settled_after=0)
    watcher.look(0)
    assert watcher.look(1) == []


def test_no_worker_loads_it(folder: Path, bomb: bytes) -> None:
    with pytest.raises(CkptmergeError):
        open_checkpoint(folder)
    with pytest.raises(CkptmergeError):
        load_model(folder, device=torch.device("cpu"))
    # Weights under a name that transformers does not look for, and a pickle under one it does.
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "weights.safetensors").write_bytes(MODEL)
    (folder / "pytorch_model.bin").write_bytes(bomb)
    with pytest.raises(ModelLoadError):
        load_model(folder, device=torch.device("cpu"))
    (folder / "tokenizer.model").write_bytes(bomb)
    with pytest.raises(CkptmergeError):
        load_tokenizer(folder)


def test_no_command_loads_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    documents = tmp_path / "held-out.jsonl"
    documents.write_text("".join(f'{{"text": "It rained {n} times."}}\n' for n in range(100)))
    monkeypatch.setenv("CKPTMERGE_URL", "http://127.0.0.1:9")
    it, out = str(folder), str(tmp_path / "out")
    for arguments in (
        ["inspect", it],
        ["merge", it, it, "--weights", "0.5,0.5", "--out", out],
        ["evaluate", it, "--held-out", str(documents)],
        ["optimize", it, it, "--held-out", str(documents), "--out", out],
        ["push", it, "--run", "run"],
    ):
        assert run(arguments) == 1, arguments
        assert "safetensors" in capsys.readouterr().err or arguments[0] == "push"


def test_no_client_loads_it(bomb: bytes, tmp_path: Path) -> None:
    with serving() as service:
        _serve_as_best(service, bomb)
        with Client(service.url) as client:
            client.best("run").download(tmp_path / "pulled")
    assert (tmp_path / "pulled" / "model.safetensors").read_bytes() == bomb
    shutil.rmtree(tmp_path / "pulled")


def _serve_as_best(service: Service, content: bytes) -> None:
    digest = str(Digest.of_bytes(content))
    file = File(
        name="model.safetensors", size=len(content), digest=digest, href=service.add(content)
    )
    service.checkpoints[1, 1] = CheckpointResource(
        id="c_1", run="run", attempt=1, step=1, tokens=None, digest=digest, content=digest,
        state="complete", missing=[], parameters=1, bytes=1, created="2026-01-01T00:00:00Z",
        files=[file],
    )  # fmt: skip
