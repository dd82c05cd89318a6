"""A service with tokens of every kind, and a look at all that it holds: who may do what there?"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import Message

from ckptmerge.domain.audit_log import Actor
from ckptmerge.domain.token import Scope, key_of, write_token
from ckptmerge.storage.records import (
    RECORDS,
    ArtifactRecord,
    CheckpointRecord,
    TaskRecord,
    TokenRecord,
)
from ckptmerge.workflow.access_tokens import all_tokens, create_token, revoke_token
from tests.integration.whole_service import TOKEN, judged_app
from tests.unit.workflow.conducted import World

BODY = 10 * 2**20
"""Bytes that a client would send, if anybody took them."""

_CHUNK = 65_536


@dataclass
class Asked:
    """What came of a request."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    taken: int = 0
    """Bytes of its body that the service took."""

    @property
    def kind(self) -> str:
        return json.loads(self.body)["type"].removeprefix("/problems/")


@dataclass
class AccessWorld:
    """A run that has been judged, the service over it, and its tokens by what they are."""

    world: World
    app: FastAPI
    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for scope in Scope:
            self.tokens[scope] = self.give_out(f"with {scope}", scope)
        self.tokens["expired"] = self.give_out("expired", Scope.ADMIN, expires=2.0)
        self.tokens["revoked"] = self.give_out("revoked", Scope.ADMIN, revoked=True)
        self.give_out("nobody's", Scope.READ)
        self.tokens["settings"] = TOKEN
        self.tokens["garbage"] = "not-a-token-of-this-service"
        self.tokens["forged"] = write_token(key_of(self.tokens[Scope.ADMIN]) or "", bytes(32))
        self.tokens["mistyped"] = self.tokens[Scope.ADMIN][:-1] + "?"

    def give_out(
        self, name: str, *scopes: Scope, expires: float | None = None, revoked: bool = False
    ) -> str:
        """Put a token on record as the service does."""
        by = Actor("settings", "of-the-test")
        with self.world.store.write() as unit:
            given = create_token(
                unit, by, name=name, scopes=scopes, expires=expires, now=1.0,
                new_id=self.app.state.service.new_id, random=secrets.token_bytes,
            )  # fmt: skip
            if revoked:
                revoke_token(unit, by, given.record.id, now=2.0)
            self.app.state.access.know(all_tokens(unit))
        return given.text

    def values(self) -> dict[str, str]:
        """Return what is there, by the names of path parameters."""
        return {
            "run": "run", "step": "100", "name": "model.safetensors", "slug": "missing",
            "checkpoint": self.world.all(CheckpointRecord)[0].id,
            "study": self.world.studies()[0].id,
            "artifact": self.world.all(ArtifactRecord)[0].id,
            "lease": self.world.all(TaskRecord)[0].id,
            "token": next(t.id for t in self.world.all(TokenRecord) if t.name == "nobody's"),
            "hexadecimal": "0" * 64, "upload_id": "u_" + "0" * 32,
        }  # fmt: skip

    def holdings(self) -> str:
        """Return a digest of every record and of every file."""
        known = hashlib.sha256()
        with self.world.store.read() as snapshot:
            for kind in RECORDS.values():
                known.update(repr(snapshot.find(kind)).encode())
        for path in sorted((self.folder / "blobs").rglob("*")):
            known.update(f"{path} {path.stat().st_size}".encode())
        return known.hexdigest()

    def ask(
        self, method: str, path: str, token: str | None = None, *, query: str = "",
        headers: Mapping[str, str] | None = None, address: str = "192.0.2.1", size: int = BODY,
    ) -> Asked:  # fmt: skip
        """Ask with a long body, and count what is taken of it."""
        asked, sent = Asked(), bytearray()
        lines = {"host": "127.0.0.1", "content-length": str(size), **(headers or {})}
        if method in {"GET", "HEAD"}:
            del lines["content-length"]
        if token is not None:
            lines["authorization"] = f"Bearer {token}"

        bodiless = method in {"GET", "HEAD"}
        over = asyncio.Event()

        async def receive() -> Message:
            if over.is_set():
                await asyncio.Event().wait()  # it stays for as long as it takes
            part = 0 if bodiless else min(_CHUNK, size - asked.taken)
            asked.taken += part
            if bodiless or asked.taken == size:
                over.set()
            return {"type": "http.request", "body": bytes(part), "more_body": not over.is_set()}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                asked.status = message["status"]
                asked.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                sent.extend(message.get("body", b""))

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": method,
            "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "scheme": "http", "http_version": "1.1", "root_path": "", "client": (address, 1),
            "server": ("127.0.0.1", 80),
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in lines.items()],
        }  # fmt: skip
        asyncio.run(self.app(scope, receive, send))
        asked.body = bytes(sent)
        return asked


@contextmanager
def access_world(folder: Path) -> Iterator[AccessWorld]:
    """Make one, on a database and a folder."""
    with judged_app(folder) as (world, app):
        made = AccessWorld(world, app, folder)
        yield made
        made.app.state.service.writer.shutdown()
        made.app.state.service.readers.shutdown()


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    """Return method, path and description of every operation of the interface document."""
    return [
        (method.upper(), path, operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]
