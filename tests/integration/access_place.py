"""A service whose clock stands still, for tests of what tokens open and when they end."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from ckptmerge.storage.records import TokenRecord
from service.app import create_app
from service.settings import Limits, Settings
from tests.integration.whole_service import TOKEN, believe
from tests.unit.workflow.conducted import propose

OURS = "http://127.0.0.1:8117"
ADMIN = {"name": "me", "scopes": ["admin"]}


class Place:
    """A service whose clock stands still until the test moves it."""

    def __init__(self, folder: Path, token: str | None = TOKEN, **limits: Any) -> None:
        self.time = 1.8e9
        self.store = MemoryStore()
        self.folder = folder
        self.settings = Settings(data=folder, token=token, limits=Limits(reserve=0, **limits))
        self.app = self.start()

    def start(self) -> FastAPI:
        """Start on what is there, as after a restart."""
        self.app = create_app(
            self.settings, store=self.store, blob_store=MemoryBlobStore(),
            propose=propose, believe=believe,
        )  # fmt: skip
        self.app.state.service.now = lambda: self.time
        return self.app

    def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        client = TestClient(self.app, base_url=OURS)
        return client.request(method, path, headers=headers, **more)

    def make(self, token: str | None = TOKEN, **new: Any) -> dict[str, Any]:
        answer = self.ask("POST", "/v1/tokens", token, json=new)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def records(self) -> list[TokenRecord]:
        with self.store.read() as snapshot:
            return snapshot.find(TokenRecord)
