"""The application: every route over one store, and the thread that moves studies on."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import RunRecord
from ckptmerge.storage.store import Store
from ckptmerge.workflow.ask import Proposer
from ckptmerge.workflow.believe import Believer
from ckptmerge.workflow.conduct import Conductor
from ckptmerge.workflow.desk import Desk
from service import docs
from service.conducting import Conducting
from service.dashboard import page
from service.dependencies import State
from service.middleware import guard
from service.problems import answer_with_problems
from service.routes import (
    artifacts,
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
from service.settings import Settings
from service.telemetry import Metrics
from service.tidying import Tidying

_ROUTES = (
    runs, best, retention, checkpoints, artifacts, lineage, held_out, studies, leases, blobs,
    uploads, events,
)  # fmt: skip


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
    conducting = _conducting(state, propose)
    conducting.tidy = Tidying(
        store,
        blob_store,
        now=state.now,
        new_id=state.new_id,
        grace=settings.limits.blob_grace,
        upload_age=settings.limits.upload_age,
    )

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
    app.state.service = state
    state.wake = conducting.wake
    metrics = Metrics()
    for module in _ROUTES:
        app.include_router(module.router)
    app.include_router(posterior_router(believe))
    app.include_router(page.router)
    app.include_router(health_router(lambda: _checks(state, conducting), metrics))
    answer_with_problems(app)
    docs.document(app, token_required=settings.token is not None)
    guard(app, settings, metrics)
    return app


def _conducting(state: State, propose: Proposer) -> Conducting:
    desk = Desk(store=state.store, blobs=state.blobs, now=state.now, new_id=state.new_id)
    return Conducting(
        Conductor(desk=desk, propose=propose, width=state.live_workers),
        clock=state.clock,
        ttl=state.settings.limits.lease_ttl,
    )


def _checks(state: State, conducting: Conducting) -> Mapping[str, bool]:
    """Look at the parts that every request needs."""
    with state.store.read() as snapshot:
        snapshot.count(RunRecord)
    free = shutil.disk_usage(state.settings.data).free
    return {
        "database": True,
        "studies": conducting.alive,
        "disk": free > state.settings.limits.reserve,
    }


def wall_clock() -> float:
    """Return the seconds since 1970."""
    return time.time()  # noqa: TID251 - the shell supplies the time
