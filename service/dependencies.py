"""What routes are given: the store, the blobs, clocks and limits of the running service."""

import asyncio
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from ckptmerge.domain.identifier import new_id
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.store import Snapshot, Store, Unit
from ckptmerge.workflow.tasks import take_back
from service.settings import Limits as LimitsSettings
from service.settings import Settings
from service.turns import Turns

T = TypeVar("T")


@dataclass
class State:
    """The running service, as its routes see it."""

    settings: Settings
    store: Store
    blobs: BlobStore
    now: Callable[[], float]
    """Seconds since 1970."""
    clock: Callable[[], float] = time.monotonic
    """The clock of leases: a change of the machine's time does not touch it."""
    announce: Callable[[], None] = lambda: None
    """Tells whoever waits for work that there may be some; from any thread."""
    wake: Callable[[], None] = lambda: None
    """Tells whoever moves studies on that something has changed."""
    writer: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "ckptmerge-write")
    )
    """Requests change the store one after the other here, and wait for nothing but each other."""
    readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(8, "ckptmerge-read")
    )
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, whenever there may be new work for workers."""
    turns: Turns = field(default_factory=Turns)
    """Who may go on with which upload."""
    draining: bool = False
    """Whether the service is about to stop, and nothing should wait for long."""
    workers: dict[str, float] = field(default_factory=dict[str, float])
    """When each worker was last heard of, on the clock of leases."""

    def new_id(self, kind: str) -> str:
        """Return a new identifier."""
        return new_id(kind, now=self.now(), random=secrets.token_bytes)

    async def write(self, change: Callable[[Unit], T]) -> T:
        """Make a change, all or nothing; it is durable when this returns."""

        def whole() -> T:
            with self.store.write() as unit:
                return change(unit)

        return await asyncio.get_running_loop().run_in_executor(self.writer, whole)

    async def read(self, look: Callable[[Snapshot], T]) -> T:
        """Look at the records."""

        def whole() -> T:
            with self.store.read() as snapshot:
                return look(snapshot)

        return await self.off_loop(whole)

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Do work that waits for files or takes long, away from the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.readers, work)

    def tell_workers(self) -> None:
        """Wake every request that waits for work; call on the event loop."""
        waiting, self.changed = self.changed, asyncio.Event()
        waiting.set()

    def drain(self) -> None:
        """Let requests that wait end; call on the event loop."""
        self.draining = True
        self.tell_workers()

    def live_workers(self) -> int:
        """Count the workers that were heard of within a lease's time."""
        horizon = self.clock() - self.settings.limits.lease_ttl
        for name, heard in list(self.workers.items()):  # a copy: others come in meanwhile
            if heard < horizon:
                self.forget(name)
        return len(self.workers)

    def forget(self, worker: str) -> None:
        """Stop counting a worker that is known to be gone; from any thread.

        Else there seems to be one more for as long as a lease lasts, and a candidate is proposed
        for it before the one that the dead worker held has been measured.
        """
        self.workers.pop(worker, None)

    def give_up_worker(self, worker: str) -> None:
        """Give what a worker held, which is known to have died, to another; from any thread."""
        with self.store.write() as unit:
            take_back(unit, worker)
        self.forget(worker)
        self.wake()
        self.announce()


def _state(request: Request) -> State:
    return request.app.state.service


def _blobs(request: Request) -> BlobStore:
    return _state(request).blobs


def _limits(request: Request) -> LimitsSettings:
    return _state(request).settings.limits


Service = Annotated[State, Depends(_state)]
Blobs = Annotated[BlobStore, Depends(_blobs)]
Limits = Annotated[LimitsSettings, Depends(_limits)]
