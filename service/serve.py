"""The service with its proposer and its workers, from its start to its end."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from ckptmerge.evaluation.documents import load_held_out
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.records import HeldOutRecord
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.storage.store import Store
from ckptmerge.workflow.proposer_process import ProposerProcess
from service.app import create_app
from service.data_folder import DataFolder
from service.routes.held_out import FILE
from service.routes.runs import DEFAULT_SET
from service.server import serve_app
from service.settings import ConfigurationError, Settings
from service.sources import copy_file
from service.watcher import keep_watching

_WORKER = "from ckptmerge.cli.main import main; main()"


def run_service(settings: Settings, *, on_ready: Callable[[str], None]) -> None:
    """Serve until told to stop.

    Args:
        settings: What to run with.
        on_ready: Told the address once requests are answered.

    Raises:
        ConfigurationError: the data folder is in use, or the address cannot be listened on.
        HeldOutSetError: the default held-out set cannot judge a model.
    """
    with DataFolder(settings.data), _stores(settings) as (store, blobs), _Workers() as workers:
        if settings.held_out is not None:
            take_default_set(store, blobs, settings.held_out)
        stopped = Event()
        with ProposerProcess() as proposer:
            app = create_app(settings, store=store, blob_store=blobs, propose=proposer.propose)

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
                "run": settings.run or run_name(folder),
                "url": url,
                "token": settings.token,
                "clock": time.monotonic,
                "stop": stopped,
            },
            name="ckptmerge-watch",
            daemon=True,
        ).start()


def run_name(folder: Path) -> str:
    """Name a run after the folder that its checkpoints settle in."""
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")
    return name[:96] or "run"


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
    if known is None:
        file = copy_file(path, FILE, blobs)
        with store.write() as unit:
            unit.insert(
                HeldOutRecord(
                    name=DEFAULT_SET,
                    digest=documents.digest,
                    file=file,
                    created=path.stat().st_mtime,
                )
            )


class _Workers:
    """Worker processes that end with this one, whatever becomes of it."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()

    def start(self, count: int, url: str) -> None:
        """Start so many; each watches the pipe to this process and ends when it closes."""
        command = [sys.executable, "-c", _WORKER, "worker", "--url", url]
        # One thread for each of several: more would wait for each other.
        threads = ["--threads", "1"] if count > 1 else []
        for _ in range(count):
            self._processes.append(
                subprocess.Popen(  # noqa: S603 - our own interpreter and command
                    [*command, "--with-parent", *threads], stdin=subprocess.PIPE
                )
            )
