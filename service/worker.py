"""A worker: takes leases from a service, does them on one device, and hands in what came of them.

It knows the service by its address alone, so it can run anywhere: beside the service, where files
are read in place, or on another machine, where they are fetched once and kept by digest.
"""

import hashlib
import os
import shutil
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import structlog
import torch

from ckptmerge.client.blobs import download, upload
from ckptmerge.client.session import Session
from ckptmerge.client.trust import pinned
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import CkptmergeError, NonFiniteLossError, ServiceError
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.wire.leases import (
    FailureName,
    LeasedCheckpoint,
    LeaseRequest,
    LeaseResource,
    Outcome,
    Renewal,
    Renewed,
    Seconds,
)
from ckptmerge.wire.resource import File
from ckptmerge.workflow.carry_out import Product, Workbench

WAIT = 20.0
"""Seconds that a request for work stays open."""

_GOODBYE = 5.0
"""Seconds that the service has to take a lease back from a worker that stops."""

_REASON = 8000
"""Characters of a failure that are handed in."""

_AWAY = (None, 429, 502, 503, 504, 507)
"""Statuses of a service that may take later what it does not take now; None: no answer."""

_log = structlog.get_logger(__name__)


class Worker:
    """Does leases until told to stop; what it was doing then, it gives back.

    Args:
        session: Speaks to the service.
        name: What the service calls this worker.
        device: Where models run, ``cpu`` or ``cuda:0``.
        cache: Folder for fetched files, kept by digest between leases.
    """

    def __init__(self, session: Session, *, name: str, device: str, cache: Path) -> None:
        self._session = session
        self._name = name
        self._device = device
        self._cache = cache
        self._bench = Workbench(torch.device(device))
        self._verified: set[tuple[Path, Digest, int, int, int]] = set()
        """Files read in place, whose bytes were digested once, as they were then."""

    def run(self, stop: threading.Event) -> None:
        """Take leases until ``stop`` is set, waiting out a service that is away."""
        while not stop.is_set():
            try:
                lease = self._next()
            except ServiceError as error:
                if error.status is not None and error.status < 500:
                    raise
                _log.warning("the service does not answer; trying again", reason=str(error))
                stop.wait(1.0)
                continue
            if lease is not None:
                self._do(lease, stop)

    def _next(self) -> LeaseResource | None:
        wanted = LeaseRequest(worker=self._name, device=self._device, wait=WAIT)
        answer = self._session.json("POST", "/v1/leases", wanted, timeout=2 * WAIT)
        return None if answer is None else LeaseResource.model_validate(answer)

    def _do(self, lease: LeaseResource, stop: threading.Event) -> None:
        """Carry a lease out and hand in its outcome; whoever lost it says nothing."""
        with self._kept(lease) as lost:
            outcome = self._outcome(lease)
            if lost.is_set():
                _log.warning("lease lost meanwhile", lease=lease.id, fence=lease.fence)
                return
            while not (lost.is_set() or self._is_taken(lease, outcome) or stop.wait(1.0)):
                pass

    def _is_taken(self, lease: LeaseResource, outcome: Outcome) -> bool:
        """Hand an outcome in; False while the service is away, which takes it when it is back."""
        try:
            self._session.json("POST", f"/v1/leases/{lease.id}/outcome", outcome)
        except ServiceError as error:
            _log.warning("outcome was not taken", lease=lease.id, reason=str(error))
            return error.status not in _AWAY
        return True

    def _outcome(self, lease: LeaseResource) -> Outcome:
        try:
            with self._scratch() as scratch:
                return self._handed_in(lease, self._product(lease, scratch))
        except NonFiniteLossError as error:
            return Outcome(fence=lease.fence, status="infeasible", reason=str(error)[:_REASON])
        except CkptmergeError as error:
            return Outcome(
                fence=lease.fence, status="failed", reason=str(error)[:_REASON], code="error"
            )
        except Exception as error:  # noqa: BLE001 - the service decides whether others shall try
            _log.exception("a lease came to nothing", lease=lease.id)
            reason = f"{type(error).__name__}: {error}"
            return Outcome(
                fence=lease.fence,
                status="failed",
                reason=reason[:_REASON],
                code=_code(error),
                log=traceback.format_exc()[-_REASON:],
            )

    def _product(self, lease: LeaseResource, scratch: Path) -> Product:
        if lease.held_out is None:
            raise ServiceError(f"lease {lease.id} names no documents")
        folders = [self._folder(each, scratch) for each in lease.checkpoints]
        held_out = scratch / lease.held_out.file.name
        held_out.symlink_to(self._file(lease.held_out.file))
        return self._bench.carry_out(
            lease, checkpoints=folders, held_out=held_out, out=scratch / "merged"
        )

    def _handed_in(self, lease: LeaseResource, product: Product) -> Outcome:
        """Upload what a lease produced, and describe it."""
        files = [
            upload(self._session, product.folder / file.name)
            for file in product.files
            if product.folder is not None
        ]
        return Outcome(
            fence=lease.fence,
            status="ok",
            scores=self._upload(product.scores),
            repeated=self._upload(product.repeated),
            files=files or None,
            seconds=Seconds.model_validate(dict(product.seconds or {})),
            bytes_written=sum(file.size for file in files),
        )

    def _upload(self, scores: DocumentScores | None) -> str | None:
        if scores is None:
            return None
        content = scores.to_bytes()
        digest = str(Digest.of_bytes(content))
        self._session.put(f"/v1/blobs/{digest}", lambda: [content], size=len(content))
        return digest

    def _folder(self, checkpoint: LeasedCheckpoint, scratch: Path) -> Path:
        """Lay a checkpoint's files out as the folder that they came as."""
        folder = scratch / f"{checkpoint.weight_index}-{checkpoint.id}"
        folder.mkdir()
        for file in checkpoint.files:
            (folder / Path(file.name).name).symlink_to(self._file(file))
        return folder

    def _file(self, file: File) -> Path:
        """Return where a file can be read: where the service keeps it, or fetched and kept."""
        if file.path is not None and self._is_right(Path(file.path), Digest.parse(file.digest)):
            return Path(file.path)
        kept = self._cache / Digest.parse(file.digest).hex
        if not kept.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            download(
                self._session, file.href, kept, size=file.size, digest=Digest.parse(file.digest)
            )
        return kept.absolute()

    def _is_right(self, path: Path, digest: Digest) -> bool:
        """Say whether a path of the service's machine is here too, and holds the right bytes."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            # A blob never changes; a file that was registered in place may.
            seen = (path, digest, status.st_size, status.st_ino, status.st_mtime_ns)
            if seen in self._verified:
                return True
            right = hashlib.file_digest(file, "sha256").hexdigest() == digest.hex
        if right:
            self._verified.add(seen)
        return right

    @contextmanager
    def _kept(self, lease: LeaseResource) -> Iterator[threading.Event]:
        """Renew the lease while the block runs; the event says that it was lost.

        Where this process is told to stop meanwhile, the lease is given back.
        """
        lost, over = threading.Event(), threading.Event()

        def renew() -> None:
            while not over.wait(lease.expires_in / 3):
                try:
                    answer = self._session.json(
                        "PUT", f"/v1/leases/{lease.id}", Renewal(fence=lease.fence)
                    )
                    if Renewed.model_validate(answer).directive == "cancel":
                        lost.set()
                except ServiceError as error:
                    # One that cannot be reached may come back, and takes late outcomes.
                    if error.status is not None and error.status < 500:
                        lost.set()

        heart = threading.Thread(target=renew, name="ckptmerge-heartbeat", daemon=True)
        heart.start()
        try:
            yield lost
        except (SystemExit, KeyboardInterrupt):
            over.set()
            self._give_back(lease)
            raise
        finally:
            over.set()

    def _give_back(self, lease: LeaseResource) -> None:
        """Let another worker have the task at once, instead of when the lease runs out."""
        # One try: whoever stops workers does not wait long, and the service may be stopping too.
        self._session.patience = replace(self._session.patience, attempts=1)
        try:
            path = f"/v1/leases/{lease.id}"
            self._session.json("DELETE", path, params={"fence": lease.fence}, timeout=_GOODBYE)
        except ServiceError as error:
            _log.warning("lease could not be given back", lease=lease.id, reason=str(error))

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="ckptmerge-lease-") as folder:
            yield Path(folder)


def _code(error: Exception) -> FailureName:
    """Say in a word what kind of failure an error is."""
    if isinstance(error, torch.OutOfMemoryError):
        return "cuda-oom"
    # What torch's allocator of the machine's own memory raises has no class of its own.
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return "oom"
    return "error"


def work(
    url: str,
    *,
    device: str,
    name: str | None = None,
    cache: Path | None = None,
    threads: int | None = None,
    with_parent: bool = False,
    certificate: Path | None = None,
) -> None:
    """Do leases of the service at ``url`` until this process is ended.

    Args:
        url: Address of the service; the token is that of ``CKPTMERGE_TOKEN``.
        device: Where models run.
        name: What the service calls this worker; host and process by default.
        cache: Folder for fetched files; one of its own, removed at the end, by default.
        threads: Threads for torch; its own default.
        with_parent: Whether to end when standard input closes.
        certificate: File of the service's own certificate, where no other is to be believed.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    own = Path(tempfile.mkdtemp(prefix="ckptmerge-cache-")) if cache is None else cache
    called = name or f"{socket.gethostname()}-{os.getpid()}"
    try:
        trust = None if certificate is None else pinned(certificate.read_text("ascii"))
        with Session(url, os.environ.get("CKPTMERGE_TOKEN"), ca=trust) as session:
            Worker(session, name=called, device=device, cache=own).run(threading.Event())
    finally:
        if cache is None:
            shutil.rmtree(own, ignore_errors=True)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: then its end of the pipe closes."""
    # Not through the buffer, whose lock a thread that waits here would hold while Python ends.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)
