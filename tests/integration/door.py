"""A service that takes checkpoints at its doors: a source root, and a client."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient
from safetensors.numpy import save

from ckptmerge.storage.records import CheckpointRecord
from service.app import create_app
from service.settings import Limits, Settings
from tests.integration.whole_service import believe
from tests.unit.workflow.conducted import World, propose

URL = "/v1/runs/run/checkpoints"
RAW = {"Content-Type": "application/octet-stream"}
MODEL = save({"w": np.ones(1000, np.float32)})


class Door:
    """A service with one source root, and a client of it."""

    def __init__(self, folder: Path, world: World) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.world = world
        self.app = create_app(
            Settings(data=folder, source_roots=(self.root,), limits=Limits(reserve=0)),
            store=world.store,
            blob_store=world.blobs,
            propose=propose,
            believe=believe,
        )
        self.client = TestClient(self.app, base_url="http://127.0.0.1:8117")

    def checkpoint(self, folder: Path, content: bytes = MODEL) -> Path:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(content)
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text("{}")
        return folder

    def known(self) -> list[CheckpointRecord]:
        return self.world.all(CheckpointRecord)


@contextmanager
def opened(folder: Path) -> Iterator[Door]:
    """Open a service in a folder, for the length of the block."""
    door = Door(folder, World())
    yield door
    state = door.app.state.service
    state.writer.shutdown()
    state.readers.shutdown()


def refused(answer, status: int, kind: str, saying: str) -> None:
    """Check that an answer is a problem of this kind, and says so."""
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (status, f"/problems/{kind}"), problem
    assert saying in problem["detail"]
