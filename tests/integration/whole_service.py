"""The whole application over a real database and folder, with a run that has been judged."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from ckptmerge.errors import RefusedError
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.storage.store import Store
from service.app import create_app
from service.settings import Limits, Settings
from tests.unit.workflow.conducted import World, propose

TOKEN = "mbo_" + "0123456789ABCDEF"


def believe(_request: object) -> NoReturn:
    """Refuse to compute a posterior: that takes the proposer process."""
    raise RefusedError("no posterior can be computed here; ask a service with a proposer process")


def whole_app(folder: Path, store: Store | None = None, blobs: BlobStore | None = None) -> FastAPI:
    """Assemble the application, in memory where nothing else is said."""
    return create_app(
        Settings(data=folder, token=TOKEN, limits=Limits(reserve=0, wrong_tokens=10**6)),
        store=store or MemoryStore(),
        blob_store=blobs or MemoryBlobStore(),
        propose=propose,
        believe=believe,
    )


@contextmanager
def judged_app(folder: Path) -> Iterator[tuple[World, FastAPI]]:
    """Assemble one on a database and a folder, whose run has a decided study and a best merge."""
    store = SqliteStore(folder / "ckptmerge.sqlite")
    blobs = FolderBlobStore(folder / "blobs", reserve=0)
    world = World(store=store, blobs=blobs)
    world.arrive(100)
    world.arrive(200)
    assert world.conclude().verdict is not None
    try:
        yield world, whole_app(folder, store, blobs)
    finally:
        blobs.close()
        store.close()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an application on loopback until the end of the block."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Without it head and body of an answer are 40 ms apart: Nagle waits for a delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
