"""The routes of blobs as the service has them, over a folder, for tests of what they answer."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.records import BlobRecord
from service.dependencies import State
from service.gate.auth import Access
from service.gate.middleware import guard
from service.problems import answer_with_problems
from service.routes.blobs import router
from service.settings import Limits, Settings
from service.telemetry import Metrics

OURS = "http://127.0.0.1:8117"
CONTENT = bytes(number % 251 for number in range(1000))
DIGEST = Digest.of_bytes(CONTENT)
ADDRESS = f"/v1/blobs/{DIGEST}"
TAG = f'"{DIGEST.hex}"'
OTHER = '"0000"'
LARGEST = 64 * 2**20
TOKEN = "mbo_" + "0123456789ABCDEF"
HUGE = "9" * 5000
"""More digits than Python turns into a number."""


class Service:
    """The routes of blobs as the service has them, over a folder."""

    def __init__(
        self, root: Path, limits: Mapping[str, Any] | None = None, **settings: Any
    ) -> None:
        self.blobs = FolderBlobStore(root, reserve=0)
        self.store = MemoryStore()
        chosen = Settings(limits=Limits(**{"largest_blob": LARGEST, **(limits or {})}), **settings)
        self.state = State(settings=chosen, store=self.store, blobs=self.blobs, now=lambda: 1.0)
        self.app = FastAPI(title="ckptmerge", version="1", openapi_url=None)
        self.app.state.service = self.state
        self.app.include_router(router)
        answer_with_problems(self.app)
        guard(self.app, chosen, Metrics(), Access(chosen.token, now=lambda: 1.0))
        self.client = TestClient(self.app, base_url=OURS)

    def incoming(self) -> list[Path]:
        return list(self.blobs._incoming.path.iterdir())

    def recorded(self) -> list[str]:
        with self.store.read() as snapshot:
            return [record.hex for record in snapshot.find(BlobRecord)]

    def holds_nothing(self) -> bool:
        return not (self.incoming() or list(self.blobs) or self.recorded())

    def close(self) -> None:
        self.state.writer.shutdown()
        self.blobs.close()


def opened() -> list[str]:
    return os.listdir("/proc/self/fd")  # noqa: PTH208 - names, not paths
