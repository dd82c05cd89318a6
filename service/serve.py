"""The service with its proposer and its workers, from its start to its end."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread

import structlog

from ckptmerge.client.address import address_here
from ckptmerge.client.trust import own_certificate, pinned
from ckptmerge.domain import identifier
from ckptmerge.domain.run import name_from
from ckptmerge.domain.token import Scope
from ckptmerge.evaluation.documents import load_held_out
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.records import HeldOutRecord
from ckptmerge.storage.store import Store
from ckptmerge.workflow.blob_records import put_files_on_record
from ckptmerge.workflow.proposer_process import ProposerProcess
from ckptmerge.workflow.reconcile import reconcile
from service.app import create_app, wall_clock
from service.data_folder import BLOBS, DataFolder
from service.database import open_records
from service.engine import Workers
from service.routes.held_out import FILE
from service.routes.runs import DEFAULT_SET
from service.server import serve_app
from service.settings import ConfigurationError, Settings
from service.sources import copy_file
from service.watcher import keep_watching

_SHOWN = 20
"""Lost files that the log names; of a disk that is gone there may be very many."""

_log = structlog.get_logger(__name__)


def run_service(settings: Settings, *, on_ready: Callable[[str], None]) -> None:
    """Serve until told to stop.

    Args:
        settings: What to run with.
        on_ready: Told the address once requests are answered.

    Raises:
        ConfigurationError: the data folder is in use, or the address cannot be listened on.
        HeldOutSetError: the default held-out set cannot judge a model.
    """
    with (
        open_data(settings) as (store, blobs),
        Workers(settings.data.absolute()) as workers,
    ):
        stopped = Event()
        with ProposerProcess() as proposer:
            app = create_app(
                settings,
                store=store,
                blob_store=blobs,
                propose=proposer.propose,
                believe=proposer.posterior,
            )

            def drain() -> None:
                stopped.set()
                app.state.service.drain()

            def lend(who: str, scope: Scope) -> str:
                key = app.state.service.new_id("k")
                return app.state.access.lend(who, scope, key=key, random=secrets.token_bytes)

            def ready(port: int) -> None:
                certificate = _certificate(settings)
                url = address_here(settings.host, port, tls=certificate is not None)
                workers.start(
                    settings.worker_devices, url, certificate=certificate,
                    token=lend("own-worker", Scope.TRIAL),
                    on_death=app.state.service.give_up_worker,
                )  # fmt: skip
                watching = lend("own-watcher", Scope.CHECKPOINT_WRITE)
                _watch(settings, url, stopped, certificate, token=watching)
                on_ready(url)

            serve_app(
                app,
                host=settings.host,
                port=settings.port,
                on_ready=ready,
                on_drain=drain,
                finished=app.state.service.capacity.transferred,
                behind_proxy=settings.behind_proxy,
                tls=(settings.tls_certificate, settings.tls_key)
                if settings.tls_certificate is not None and settings.tls_key is not None
                else None,
                deadlines=settings.limits,
                connections=settings.limits.connections,
            )


@contextmanager
def open_data(settings: Settings) -> Iterator[tuple[Store, BlobStore]]:
    """Open records and blobs for this process alone, whatever the last one left of them.

    Raises:
        ConfigurationError: another process serves the folder, or it cannot be used.
        HeldOutSetError: the default held-out set cannot judge a model.
    """
    with DataFolder(settings.data), _stores(settings) as (store, blobs):
        _reconcile(store, blobs)
        if settings.held_out is not None:
            take_default_set(store, blobs, settings.held_out)
        yield store, blobs


def _certificate(settings: Settings) -> str | None:
    """Return the service's own certificate, by which its workers and watchers know it.

    They call it by an address of this machine, which the certificate need not hold; and it may be
    signed by nobody whom this machine believes.
    """
    if settings.tls_certificate is None:
        return None
    return own_certificate(settings.tls_certificate.read_text("ascii", "replace"))


def _watch(
    settings: Settings, url: str, stopped: Event, certificate: str | None, *, token: str
) -> None:
    """Start a thread for every watched folder; it reaches the service as anybody else would."""
    for folder in settings.watch:
        Thread(
            target=keep_watching,
            args=(folder,),
            kwargs={
                "run": settings.run or name_from(folder.resolve().name),
                "url": url,
                "token": token,
                "ca": None if certificate is None else pinned(certificate),
                "clock": time.monotonic,
                "stop": stopped,
            },
            name="ckptmerge-watch",
            daemon=True,
        ).start()


@contextmanager
def _stores(settings: Settings) -> Iterator[tuple[Store, BlobStore]]:
    """Open the records and the blobs of the data folder."""
    settings.data.mkdir(parents=True, exist_ok=True)
    store = open_records(settings)
    blobs = FolderBlobStore(settings.data / BLOBS, reserve=settings.limits.reserve)
    try:
        yield store, blobs
    finally:
        blobs.close()
        store.close()


def _reconcile(store: Store, blobs: BlobStore) -> None:
    """Compare records and blobs before anybody relies on either, and say what was lost."""
    new_id = partial(identifier.new_id, now=wall_clock(), random=secrets.token_bytes)
    found = reconcile(store, blobs, now=wall_clock(), new_id=new_id)
    if found.lost or found.damaged:
        _log.error(
            "files were lost; send damaged checkpoints again",
            files=len(found.lost),
            first=[str(digest) for digest in found.lost[:_SHOWN]],
            damaged=found.damaged,
        )
    if found.unrecorded:
        _log.info("files without a record were put on record", files=found.unrecorded)


def take_default_set(store: Store, blobs: BlobStore, path: Path) -> None:
    """Make a file the held-out set that judges runs which name no other.

    Raises:
        ConfigurationError: the service has had another one.
        HeldOutSetError: the file cannot judge a model.
    """
    documents = load_held_out(path)
    with store.read() as snapshot:
        known = snapshot.get(HeldOutRecord, DEFAULT_SET)
    if known is not None and known.digest != documents.digest:
        raise ConfigurationError(
            f"{path} is not the held-out set that this service was first started with; upload it "
            "under a name of its own, and let runs change to it"
        )
    if known is not None and blobs.size(known.file.digest) is not None:
        return
    file = copy_file(path, FILE, blobs)
    with store.write() as unit:
        put_files_on_record(unit, blobs, [file], now=wall_clock())
        if known is not None:
            unit.update(replace(known, file=file))
        else:
            unit.insert(
                HeldOutRecord(
                    name=DEFAULT_SET, digest=documents.digest, file=file, created=wall_clock()
                )
            )
