"""What routes are given: the store, the blobs, clocks and limits of the running service."""

import asyncio
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from ckptmerge.domain.audit_log import Actor
from ckptmerge.domain.identifier import new_id
from ckptmerge.domain.task import Failure
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.store import Snapshot, Store, Unit
from ckptmerge.workflow.tasks import take_back
from service.gate.capacity import Capacity
from service.line import Line
from service.roster import Roster
from service.settings import Limits as LimitsSettings
from service.settings import Settings
from service.telemetry import REDACTED, without_secrets
from service.turns import Turns

LAST_WORDS = 8192
"""Characters that are kept of what a worker said before it failed."""

_KILLED = (-9, 137)
"""Exit codes of who is killed: by ourselves (minus SIGKILL), or within a shell (128 + SIGKILL)."""

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
    line: Line = field(default_factory=Line)
    """Requests that wait for work."""
    turns: Turns = field(default_factory=Turns)
    """Who may go on with which upload."""
    capacity: Capacity = field(init=False)
    """What is being answered."""
    draining: bool = False
    """Whether the service is about to stop, and nothing should wait for long."""
    workers: Roster = field(init=False)
    """Who works here."""

    def __post_init__(self) -> None:
        self.capacity = Capacity(self.settings.limits)
        self.workers = Roster(
            self.clock,
            silence=self.settings.limits.lease_ttl,
            quarantine=self.settings.limits.quarantine,
        )

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
        """Say that there may be work for those who wait for some; call on the event loop."""
        self.line.call()

    def drain(self) -> None:
        """Let requests that wait end, and begin none that takes long; call on the event loop."""
        self.draining = True
        self.capacity.drain()
        self.line.call_all()

    def live_workers(self) -> int:
        """Count the workers that were heard of within a lease's time, and are given work."""
        return self.workers.count()["working"]

    def kept_words(self, said: str | None) -> str | None:
        """Return what is kept of a worker's words: their end, and no secrets."""
        text = without_secrets(said or "")
        if self.settings.token is not None:
            text = text.replace(self.settings.token, REDACTED)
        return text[-LAST_WORDS:] or None

    def give_up_worker(self, worker: str, code: int, said: str) -> None:
        """Give what a worker held, which is known to have died, to another; from any thread.

        Args:
            worker: Its name.
            code: Its exit code; minus the signal where one has killed it.
            said: The end of its stderr.
        """
        killed = Failure.KILLED if code in _KILLED else Failure.CRASHED
        with self.store.write() as unit:
            take_back(unit, worker, code=killed, log=self.kept_words(said))
        self.workers.forget(worker)
        self.wake()
        self.announce()


def _state(request: Request) -> State:
    return request.app.state.service


async def _actor(request: Request) -> Actor:
    return Actor(who=request.state.who, request=request.state.request_id)


def _blobs(request: Request) -> BlobStore:
    return _state(request).blobs


def _limits(request: Request) -> LimitsSettings:
    return _state(request).settings.limits


Service = Annotated[State, Depends(_state)]
By = Annotated[Actor, Depends(_actor)]
Blobs = Annotated[BlobStore, Depends(_blobs)]
Limits = Annotated[LimitsSettings, Depends(_limits)]
