"""A disk that fills up under the service: refused with 507, nothing lost, and over when it is."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
from structlog.testing import capture_logs

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.study import StudyState
from ckptmerge.storage.records import ArtifactRecord, StudyRecord
from ckptmerge.storage.store import Store
from service.app import create_app
from service.serve import open_data
from tests.e2e.running import RunningService, wait_for
from tests.integration.whole_service import believe, serving
from tests.torture.arrivals import settings_of, write_held_out
from tests.torture.disk_images import small_disk
from tests.torture.finding import Finding
from tests.torture.inspected import look
from tests.torture.journal import Journal
from tests.torture.known_worker import search, work
from tests.torture.traced import PROCESSES
from tests.unit.workflow.conducted import propose

MEGABYTES = 64

BLOB = 3 * 2**20
"""Bytes of an upload: no divisor of the disk's, so that the last one is cut in the middle."""

CHANGES = 1000
"""Small ones that are tried until one is refused."""

FLOATS = 2_000_000
"""Of a merge: 8 MB."""

SECONDS = 90.0
"""How long a study may take to end; a quiet machine needs five."""


class Ballast:
    """A file that takes the room of a disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self, *, leave: int = 0) -> None:
        """Take all the room there is but so many bytes."""
        with self._path.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                status = os.statvfs(self._path)
                free = status.f_bavail * status.f_frsize - leave
                if free <= 0:
                    return
                file.write(b"\0" * min(free, 2**20))

    def remove(self) -> None:
        """Give all of it back."""
        self._path.unlink(missing_ok=True)


def fill_under_uploads(folder: Path) -> Iterator[Finding]:
    """Upload to the real service until its disk is full, and once there is room again."""
    folder.mkdir()
    held_out, journal, data = write_held_out(folder), Journal(folder / "journal"), folder / "data"
    with small_disk(data, megabytes=MEGABYTES):
        ballast = Ballast(data / "ballast")
        service = RunningService(folder, held_out, workers=0)
        with service, httpx2.Client(base_url=service.url, timeout=60) as client:
            ballast.fill(leave=MEGABYTES * 2**20 // 2)
            uploads = [_put(client, number, journal) for number in range(MEGABYTES * 2**20 // BLOB)]
            ballast.fill()
            refused = [*uploads, *_until_refused(client, journal)]
            reads = [_read_back(client, fact["blob"]) for fact in journal.facts()]
            alive = client.get("/healthz").status_code, client.get("/readyz").status_code
            ballast.remove()
            again = [_put(client, number, journal) for number in (1000, 1001)]
            again += _changes(client, journal)
            ready = client.get("/readyz").status_code
            code = service.stop()
        seen = look(settings_of(data, held_out), journal)
    full = [status for status in refused if status[0] >= 400]
    yield Finding(
        area="bad_disks",
        promise=f"uploads to a full disk of {MEGABYTES} MB: every refusal 507 out-of-space, reads "
        "go on, 0 acknowledged objects lost; with room again all of it works without a restart",
        figure=f"{len(full)} refused ({_kinds(full)}), {reads.count(True)} of {len(reads)} blobs "
        f"read back, health {alive[0]} and readiness {alive[1]}, then {ready}; with room "
        f"{_kinds(again)}; {len(seen.lost)} lost" + (f": {seen}" if seen else ""),
        held=set(full) == {(507, "out-of-space")} and all(reads) and alive == (200, 503)
        and ready == 200 and all(status < 300 for status, _ in again) and not seen and code == 0,
    )  # fmt: skip


def _put(client: httpx2.Client, number: int, journal: Journal) -> tuple[int, str]:
    """Upload a blob that no other number has."""
    content = number.to_bytes(8, "big") * (BLOB // 8)
    digest = Digest.of_bytes(content)
    answer = client.put(f"/v1/blobs/{digest}", content=content)
    if answer.status_code < 300:
        journal.say(blob=digest.hex)
    return _kind(answer)


def _until_refused(client: httpx2.Client, journal: Journal) -> list[tuple[int, str]]:
    """Make small changes until the database, which has some room of its own, has none left."""
    answers: list[tuple[int, str]] = []
    while len(answers) < CHANGES and all(status < 300 for status, _ in answers[-1:]):
        answers += _changes(client, journal)
    return answers


def _changes(client: httpx2.Client, journal: Journal) -> list[tuple[int, str]]:
    """Make two small changes, one of them in the database alone."""
    small = os.urandom(20_000)
    digest = Digest.of_bytes(small)
    blob = client.put(f"/v1/blobs/{digest}", content=small)
    if blob.status_code < 300:
        journal.say(blob=digest.hex)
    run = client.post("/v1/runs", json={"name": f"run-{digest.hex[:20]}"})
    return [_kind(blob), _kind(run)]


def _read_back(client: httpx2.Client, name: str) -> bool:
    return Digest.of_bytes(client.get(f"/v1/blobs/sha256:{name}").content).hex == name


def _kind(answer: httpx2.Response) -> tuple[int, str]:
    problem = answer.headers.get("content-type") == "application/problem+json"
    return answer.status_code, answer.json()["type"].rpartition("/")[2] if problem else ""


def _kinds(statuses: list[tuple[int, str]]) -> str:
    return ", ".join(sorted({f"{status} {kind}".strip() for status, kind in statuses}))


def fill_under_a_merge(folder: Path) -> Iterator[Finding]:
    """Let a merge have no room, in the middle of a study: for good, and for a while."""
    folder.mkdir()
    with _studying(folder / "small") as (store, ballast, start):
        ballast.fill(leave=4 * 2**20)
        start()
        wait_for(lambda: _study(store).state is not StudyState.FROZEN, SECONDS)
        reason, visible = _study(store).stopped or "", _visible(store)
        left = list((folder / "small").rglob("*merged*"))
    yield Finding(
        area="bad_disks",
        promise="a merge that does not fit: the study ends and says why, 0 bytes of it left or to "
        "be seen",
        figure=f"study {_study_of(reason)}; {len(visible)} to be seen, {len(left)} left",
        held="free some space" in reason and not visible and not left,
    )
    with _studying(folder / "full") as (store, ballast, start):
        ballast.fill()
        start()
        time.sleep(3)  # nothing is to happen, so there is nothing to wait for
        waiting = _study(store).state, _visible(store)
        ballast.remove()
        wait_for(lambda: _study(store).state is StudyState.DECIDED, SECONDS)
        visible = _visible(store)
    yield Finding(
        area="bad_disks",
        promise="a disk that is full in the middle of a study: it waits, and is decided once there "
        "is room, without a restart",
        figure=f"study {waiting[0]} for as long as it was full, then {len(visible)} merge promoted",
        held=waiting == (StudyState.FROZEN, []) and len(visible) == 1,
    )


def _study_of(reason: str) -> str:
    return f"ended with {reason[:160]!r}"


@contextmanager
def _studying(folder: Path) -> Iterator[tuple[Store, Ballast, Callable[[], None]]]:
    """Serve a study that waits for its merge on a small disk; yields what starts a worker."""
    folder.mkdir()
    with small_disk(folder, megabytes=MEGABYTES):
        search(folder / "data", floats=FLOATS)
        (folder / "worker").mkdir()
        settings = settings_of(folder / "data", None, lease_ttl=3.0)
        with capture_logs(), open_data(settings) as (store, blobs):
            app = create_app(
                settings, store=store, blob_store=blobs, propose=propose, believe=believe
            )
            with serving(app) as url:
                worker = PROCESSES.Process(target=work, args=(url, folder / "worker"))
                try:
                    yield store, Ballast(folder / "ballast"), worker.start
                finally:
                    if worker.pid is not None:
                        worker.kill()
                        worker.join()


def _study(store: Store) -> StudyRecord:
    with store.read() as snapshot:
        return snapshot.find(StudyRecord)[-1]


def _visible(store: Store) -> list[str]:
    """Return the merges that can be seen."""
    with store.read() as snapshot:
        return [record.id for record in snapshot.find(ArtifactRecord) if record.promoted]
