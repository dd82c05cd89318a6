"""The whole service over a world whose loss is known: real routes, a client, and no processes."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import NoReturn

import uvicorn
from structlog.testing import capture_logs

from ckptmerge.storage.blobs import put
from ckptmerge.workflow.believe import Believer
from service.app import create_app
from service.dependencies import State
from service.settings import Limits, Settings
from tests.unit.workflow.conducted import World, propose


@dataclass
class ConductedService:
    """A service at ``url``; its studies move when the test says so."""

    url: str = ""
    world: World = field(default_factory=World)
    state: State = field(init=False)

    def queue_tasks(self) -> None:
        """Let the newest study ask for all that it can ask for."""
        while self.world.conductor.advance(self.world.studies()[-1].id):
            pass


def _nothing(*_: object) -> NoReturn:
    raise AssertionError("nobody is asked what it believes here")


@contextmanager
def conducted_service(
    folder: Path, *, lease_ttl: float = 60.0, believe: Believer = _nothing
) -> Iterator[ConductedService]:
    """Serve on loopback until the end of the block.

    The lifespan is left out, and with it the thread that moves studies on: nothing happens by
    itself.
    """
    service = ConductedService()
    put(service.world.blobs, b"h")  # the world's held-out file, which leases name
    settings = Settings(data=folder, limits=Limits(lease_ttl=lease_ttl, reserve=0))
    app = create_app(
        settings,
        store=service.world.store,
        blob_store=service.world.blobs,
        propose=propose,
        believe=believe,
    )
    service.state = app.state.service
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    # Requests are logged on standard output unless told otherwise, where commands print theirs.
    with capture_logs(), socket.create_server(("127.0.0.1", 0)) as listener:
        service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield service
        server.should_exit = True
        thread.join()
    service.state.writer.shutdown()
    service.state.readers.shutdown()
