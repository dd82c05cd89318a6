"""The application: every route over one store, and the thread that moves studies on."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import structlog
from fastapi import FastAPI

from ckptmerge.errors import CkptmergeError
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import RunRecord
from ckptmerge.storage.store import Store
from ckptmerge.workflow.access_tokens import all_tokens, note_use
from ckptmerge.workflow.ask import Proposer
from ckptmerge.workflow.believe import Believer
from ckptmerge.workflow.conduct import Conductor
from ckptmerge.workflow.desk import Desk
from service import docs
from service.conducting import Conducting
from service.dashboard import page
from service.dependencies import State
from service.gate.auth import Access
from service.gate.middleware import guard
from service.problems import answer_with_problems
from service.routes import (
    arrivals,
    artifacts,
    audit,
    best,
    blobs,
    checkpoints,
    events,
    held_out,
    leases,
    lineage,
    retention,
    runs,
    studies,
    uploads,
)
from service.routes.health import health_router
from service.routes.posterior import posterior_router
from service.routes.tokens import token_router
from service.settings import Settings
from service.telemetry import Metrics
from service.tidying import Tidying

_ROUTES = (
    runs, best, retention, arrivals, checkpoints, artifacts, lineage, held_out, studies, leases,
    blobs, uploads, events, audit,
)  # fmt: skip

_log = structlog.get_logger(__name__)


def create_app(
    settings: Settings,
    *,
    store: Store,
    blob_store: BlobStore,
    propose: Proposer,
    believe: Believer,
) -> FastAPI:
    """Assemble the service.

    Args:
        settings: What it runs with.
        store: Its records.
        blob_store: Its bytes.
        propose: Names candidates; called from one thread.
        believe: Computes posteriors; called from another, by one request at a time.
    """
    state = State(settings=settings, store=store, blobs=blob_store, now=wall_clock)
    access = _access(state)
    conducting = _conducting(state, propose)
    tidying = Tidying(
        store,
        blob_store,
        now=state.now,
        new_id=state.new_id,
        grace=settings.limits.blob_grace,
        upload_age=settings.limits.upload_age,
        free=lambda: _free(settings.data),
        watermark=settings.limits.watermark,
    )

    def keep_house(changed: bool) -> None:
        _note_uses(store, access)
        tidying(changed)

    conducting.tidy = keep_house

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def wake_workers() -> None:
            loop.call_soon_threadsafe(state.tell_workers)

        conducting.on_change = state.announce = wake_workers
        with conducting:
            yield
        state.writer.shutdown()
        state.readers.shutdown()

    app = FastAPI(
        title="ckptmerge",
        summary="Checkpoints in, certified champion out.",
        version=version("ckptmerge"),
        lifespan=lifespan,
        openapi_url=None,
    )
    app.state.service, app.state.access = state, access
    state.wake = conducting.wake
    metrics = Metrics()
    metrics.watch_workers(state.workers.count)
    for module in _ROUTES:
        app.include_router(module.router)
    app.include_router(posterior_router(believe))
    app.include_router(token_router(access))
    app.include_router(page.router)
    app.include_router(
        health_router(lambda: _checks(state, conducting), metrics, workers=state.workers.count)
    )
    answer_with_problems(app)
    docs.document(app, asks=lambda: access.asks)
    guard(app, settings, metrics, access, capacity=state.capacity)
    return app


def _free(folder: Path) -> int:
    """Return how many bytes are free on the disk of a folder."""
    return shutil.disk_usage(folder).free


def _access(state: State) -> Access:
    def now() -> float:
        return state.now()  # looked up each time: tests put another clock in its place

    access = Access(state.settings.token, now=now)
    with state.store.read() as snapshot:
        access.know(all_tokens(snapshot))
    return access


def _note_uses(store: Store, access: Access) -> None:
    """Write down which tokens were used in this hour, where that is not known yet."""
    used = access.take_used()
    if used:
        with store.write() as unit:
            note_use(unit, used)


def _conducting(state: State, propose: Proposer) -> Conducting:
    desk = Desk(store=state.store, blobs=state.blobs, now=state.now, new_id=state.new_id)
    return Conducting(
        Conductor(desk=desk, propose=propose, width=state.live_workers),
        clock=state.clock,
        ttl=state.settings.limits.lease_ttl,
        longest=state.settings.limits.longest_task,
    )


def _checks(state: State, conducting: Conducting) -> Mapping[str, bool]:
    """Look at the parts that every request needs."""
    free = _free(state.settings.data)
    return {
        "database": _readable(state.store),
        "studies": conducting.alive,
        "disk": free > state.settings.limits.reserve,
        "admission": not state.draining,
    }


def _readable(store: Store) -> bool:
    try:
        with store.read() as snapshot:
            snapshot.count(RunRecord)
    except CkptmergeError as error:
        _log.error("the database cannot be read", reason=str(error))
        return False
    return True


def wall_clock() -> float:
    """Return the seconds since 1970."""
    return time.time()  # noqa: TID251 - the shell supplies the time
