"""The service with its proposer and its workers, from its start to its end."""

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread

import structlog

from ckptmerge.domain import identifier
from ckptmerge.domain.run import name_from
from ckptmerge.evaluation.documents import load_held_out
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.records import HeldOutRecord
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.storage.store import Store
from ckptmerge.workflow.blob_records import put_files_on_record
from ckptmerge.workflow.proposer_process import ProposerProcess
from ckptmerge.workflow.reconcile import reconcile
from service.app import create_app, wall_clock
from service.data_folder import DataFolder
from service.routes.held_out import FILE
from service.routes.runs import DEFAULT_SET
from service.server import serve_app
from service.settings import ConfigurationError, Settings
from service.sources import copy_file
from service.watcher import keep_watching

_WORKER = "from ckptmerge.cli.main import main; main()"

_PERIOD = 2.0
"""Seconds between looks for workers that died."""

_SHOWN = 20
"""Lost files that the log names; of a disk that is gone there may be very many."""

_PATIENCE = 10.0
"""Seconds that a worker has to end by itself."""

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
    with DataFolder(settings.data), _stores(settings) as (store, blobs), Workers() as workers:
        _reconcile(store, blobs)
        if settings.held_out is not None:
            take_default_set(store, blobs, settings.held_out)
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

            def ready(port: int) -> None:
                url = f"http://{settings.host}:{port}"
                workers.start(settings.workers, url)
                _watch(settings, url, stopped)
                on_ready(url)

            serve_app(
                app,
                host=settings.host,
                port=settings.port,
                on_ready=ready,
                on_drain=drain,
                behind_proxy=settings.behind_proxy,
                tls=(settings.tls_certificate, settings.tls_key)
                if settings.tls_certificate is not None and settings.tls_key is not None
                else None,
            )


def _watch(settings: Settings, url: str, stopped: Event) -> None:
    """Start a thread for every watched folder; it reaches the service as anybody else would."""
    for folder in settings.watch:
        Thread(
            target=keep_watching,
            args=(folder,),
            kwargs={
                "run": settings.run or name_from(folder.resolve().name),
                "url": url,
                "token": settings.token,
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
    store = SqliteStore(settings.data / "ckptmerge.sqlite")
    blobs = FolderBlobStore(settings.data / "blobs", reserve=settings.limits.reserve)
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


class Workers:
    """Worker processes: started anew when one dies, and ended with this process.

    A worker that is killed loses its lease; without another one its task would wait for ever.
    """

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._command: list[str] = []
        self._stopping = Event()
        self._minder = Thread(target=self._mind, name="ckptmerge-workers", daemon=True)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._minder.is_alive():
            self._minder.join()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, count: int, url: str) -> None:
        """Start so many; each watches the pipe to this process and ends when it closes."""
        # One thread for each of several: more would wait for each other.
        threads = ["--threads", "1"] if count > 1 else []
        self._command = [
            sys.executable, "-c", _WORKER, "worker", "--url", url, "--with-parent", *threads,
        ]  # fmt: skip
        self._processes = [self._started() for _ in range(count)]
        self._minder.start()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: S603 - our own command

    def _mind(self) -> None:
        """Replace the dead, at most one generation a period: a worker that cannot start is slow."""
        while not self._stopping.wait(_PERIOD):
            for index, process in enumerate(self._processes):
                if process.poll() is not None:
                    _log.warning("a worker died; starting another", code=process.returncode)
                    self._processes[index] = self._started()
