"""The routes of uploads and blobs as the service has them, and a client that says anything."""

import base64
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.records import BlobRecord, UploadRecord
from ckptmerge.workflow.expire_uploads import expire_uploads
from service.dependencies import State
from service.gate.auth import Access
from service.gate.middleware import guard
from service.problems import answer_with_problems
from service.routes import blobs, uploads
from service.settings import Limits, Settings
from service.telemetry import Metrics

AGE = 100.0


class UploadService:
    """Uploads over a folder; its clock is set by hand."""

    def __init__(self, root: Path, **limits: Any) -> None:
        self.time = 1000.0
        self.root = root
        self.blobs = FolderBlobStore(root, reserve=0)
        self.store = MemoryStore()
        chosen = Settings(limits=Limits(**{"upload_age": AGE, **limits}))
        self.state = State(
            settings=chosen, store=self.store, blobs=self.blobs, now=lambda: self.time
        )
        self.app = FastAPI(title="ckptmerge", version="1", openapi_url=None)
        self.app.state.service = self.state
        self.app.include_router(blobs.router)
        self.app.include_router(uploads.router)
        answer_with_problems(self.app)
        guard(self.app, chosen, Metrics(), Access(chosen.token, now=lambda: 1.0))
        self.client = TestClient(self.app, base_url="http://127.0.0.1:8117")

    def create(self, content: bytes, length: int | None = None) -> str:
        answer = self.client.post("/v1/uploads", headers=announcing(content, length))
        assert answer.status_code == 201, answer.text
        return answer.headers["location"]

    def append(
        self, address: str, content: bytes, offset: int, *, last: bool = False, **headers: str
    ) -> Any:
        return self.client.patch(
            address, content=content, headers={**appending(offset, last=last), **headers}
        )

    def offset(self, address: str) -> int:
        return int(self.client.head(address).headers["upload-offset"])

    def restart(self) -> None:
        """Open the folder anew, as after a kill: whatever was in memory is lost."""
        self.blobs = FolderBlobStore(self.root, reserve=0)
        self.state.blobs = self.blobs

    def expire(self) -> int:
        return expire_uploads(self.store, self.blobs.partials, now=self.time, age=AGE)

    def uploads(self) -> list[UploadRecord]:
        with self.store.read() as snapshot:
            return snapshot.find(UploadRecord)

    def recorded(self) -> list[str]:
        with self.store.read() as snapshot:
            return [record.hex for record in snapshot.find(BlobRecord)]

    def holds_nothing(self) -> bool:
        return not (
            list(self.blobs) or list(self.blobs.partials) or self.uploads() or self.recorded()
        )

    def close(self) -> None:
        self.state.writer.shutdown()
        self.state.readers.shutdown()
        self.blobs.close()


def announcing(content: bytes, length: int | None = None) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(Digest.of_bytes(content).hex)).decode()
    return {
        "Upload-Complete": "?0",
        "Upload-Length": str(len(content) if length is None else length),
        "Repr-Digest": f"sha-256=:{digest}:",
    }


def appending(offset: int, *, last: bool = False) -> dict[str, str]:
    return {
        "Content-Type": "application/partial-upload",
        "Upload-Offset": str(offset),
        "Upload-Complete": "?1" if last else "?0",
    }
