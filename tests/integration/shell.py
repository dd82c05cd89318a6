"""A small service behind the shell of the real one."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient

from ckptmerge.domain.token import Scope
from ckptmerge.errors import MissingError
from service.docs import document
from service.gate.auth import Access, needs
from service.gate.middleware import guard
from service.problems import answer_with_problems
from service.routes.health import health_router
from service.settings import Settings
from service.telemetry import Metrics, configure_logging

TOKEN = "mbo_" + "0123456789ABCDEF"
OURS = "http://127.0.0.1:8117"
LARGEST = 1000


@dataclass
class Shell:
    """A small service: its app, its parts' state, and what it has done."""

    settings: Settings = field(default_factory=Settings)
    checks: dict[str, bool] = field(default_factory=lambda: {"database": True})
    changes: list[bytes] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    def app(self) -> FastAPI:
        app = FastAPI(title="ckptmerge", version="1", openapi_url=None)
        router = APIRouter(prefix="/runs")
        read, write = [needs(Scope.READ)], [needs(Scope.CHECKPOINT_WRITE)]

        @router.get("/{run}", operation_id="get_run", summary="A run", dependencies=read)
        def one(run: str, limit: int = 10) -> dict[str, int]:
            raise MissingError(f"there is no run {run!r}, {limit}")

        @router.post(
            "/{run}/checkpoints",
            operation_id="add",
            summary="<b>Add</b> & keep",
            dependencies=write,
        )
        @app.put("/v1/blobs/{run}", operation_id="add_blob", summary="A blob", dependencies=write)
        async def add(run: str, request: Request) -> dict[str, str]:
            self.changes.append(b"".join([part async for part in request.stream()]))
            return {"run": run}

        @router.post("/{run}/fail", operation_id="fail", summary="Fail", dependencies=write)
        async def fail(values: dict[str, int]) -> None:
            raise ValueError(f"a bug {values} \r\nINFO forged line token=hush")

        app.include_router(router, prefix="/v1")
        app.include_router(health_router(lambda: self.checks, self.metrics))
        access = Access(self.settings.token, now=lambda: 0.0)
        document(app, asks=lambda: access.asks)
        answer_with_problems(app)
        guard(app, self.settings, self.metrics, access)
        return app

    def client(self, **headers: str) -> TestClient:
        return TestClient(self.app(), base_url=OURS, headers=headers)


@contextmanager
def log_lines() -> Iterator[io.StringIO]:
    """Write log lines as the service does for programs, until the end of the block."""
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers, root.level
    configure_logging(stream, readable=False)
    yield stream
    root.handlers, root.level = before
    structlog.reset_defaults()


def events(lines: io.StringIO) -> list[dict[str, object]]:
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [event for event in found if event["logger"] != "httpx2"]  # the test's own client
