"""The machine's clock set an hour ahead and back: leases, uploads and studies go by another one."""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import httpx2
from structlog.testing import capture_logs

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.study import StudyState
from ckptmerge.storage.records import StudyRecord
from ckptmerge.storage.store import Store
from service.app import create_app
from service.dependencies import State
from service.serve import open_data
from tests.e2e.running import wait_for
from tests.integration.whole_service import believe, serving
from tests.torture.arrivals import settings_of
from tests.torture.finding import Finding
from tests.torture.known_worker import search, work
from tests.torture.traced import PROCESSES
from tests.unit.workflow.conducted import propose

HOUR = 3600.0

TTL = 3.0
"""Seconds of a lease here."""

SLACK = 5.0
"""Seconds past its lease after which a task must be somebody else's."""

CONTENT = bytes(range(256)) * 64


@dataclass
class WallClock:
    """The time of day, as somebody has set it."""

    ahead: float = 0.0

    def __call__(self) -> float:
        """Return the seconds since 1970."""
        return time.time() + self.ahead  # noqa: TID251 - this is the machine's clock


def jump_clocks(folder: Path) -> Iterator[Finding]:
    """Set the clock ahead and back under a lease, an upload and a study."""
    folder.mkdir()
    wall, half = WallClock(), len(CONTENT) // 2
    with _studying(folder / "jumps", wall, leases=time.monotonic) as (store, url):
        with httpx2.Client(base_url=url, timeout=30) as client:
            upload, lease = _begin_upload(client), _lease(client, "kept")
            kept, offsets = [], []
            for jump in (HOUR, -2 * HOUR):
                wall.ahead += jump
                kept.append(_is_kept(client, lease))
                offsets.append(_offset(client, upload))
            seconds = _seconds_until_given_on(client, lease)
        decided = _is_decided(folder, store, url, wall)
    yield Finding(
        area="bad_disks",
        promise=f"clock +1 h and -1 h: a lease that is renewed is kept, one that is not is given "
        f"on within {TTL + SLACK:.0f} s, 0 uploads expire, and the study is decided",
        figure=f"lease kept after {kept.count(True)} of 2 jumps, given on after {seconds:.1f} s, "
        f"upload at {offsets} of {len(CONTENT)} bytes, study "
        f"{'decided' if decided else 'not decided'}",
        held=all(kept) and TTL / 3 < seconds <= TTL + SLACK and offsets == [half, half] and decided,
    )
    with (
        _studying(folder / "control", wall, leases=wall) as (_, url),
        httpx2.Client(base_url=url, timeout=30) as client,
    ):
        lease = _lease(client, "kept")
        wall.ahead += HOUR
        kept = [_is_kept(client, lease)]
    yield Finding(
        area="bad_disks",
        promise="control: with leases on the machine's clock, one that is renewed is lost",
        figure=f"lease kept after {kept.count(True)} of 1 jump",
        held=not all(kept),
    )


def _is_kept(client: httpx2.Client, lease: tuple[str, int]) -> bool:
    """Renew a lease in time for a while; False where it is lost, or somebody else's."""
    for _ in range(2):
        time.sleep(TTL / 2)  # longer than the service takes to look for leases that ran out
        answer = client.put(f"/v1/leases/{lease[0]}", json={"fence": lease[1]})
        if answer.status_code != 200 or _lease(client, "other")[0] == lease[0]:
            return False
    return True


@contextmanager
def _studying(
    folder: Path, wall: WallClock, *, leases: Callable[[], float]
) -> Iterator[tuple[Store, str]]:
    """Serve a study that waits for its merge, by a clock that can be set."""
    folder.mkdir()
    search(folder / "data", floats=8)
    settings = settings_of(folder / "data", None, lease_ttl=TTL)
    with (
        capture_logs(),
        patch("service.app.wall_clock", wall),
        patch("service.app.State", partial(State, clock=leases)),
        open_data(settings) as (store, blobs),
    ):
        app = create_app(settings, store=store, blob_store=blobs, propose=propose, believe=believe)
        with serving(app) as url:
            yield store, url


def _begin_upload(client: httpx2.Client) -> str:
    """Begin an upload, and send the first half of it; return where it is."""
    raw = bytes.fromhex(Digest.of_bytes(CONTENT).hex)
    begun = client.post(
        "/v1/uploads",
        headers={
            "Upload-Complete": "?0", "Upload-Length": str(len(CONTENT)),
            "Repr-Digest": f"sha-256=:{base64.b64encode(raw).decode()}:",
        },
    )  # fmt: skip
    where = begun.headers["location"]
    half = CONTENT[: len(CONTENT) // 2]
    headers = {
        "Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?0",
    }  # fmt: skip
    client.patch(where, content=half, headers=headers).raise_for_status()
    return where


def _offset(client: httpx2.Client, upload: str) -> int:
    """Return how far an upload has come; -1 where it is not there any more."""
    return int(client.head(upload).headers.get("upload-offset", -1))


def _lease(client: httpx2.Client, worker: str) -> tuple[str, int]:
    """Ask for work, and return the task and the fence; an empty name where there is none."""
    answer = client.post("/v1/leases", json={"worker": worker, "device": "cpu", "wait": 0})
    if answer.status_code != 201:
        return "", 0
    lease = answer.json()
    return lease["id"], lease["fence"]


def _seconds_until_given_on(client: httpx2.Client, lease: tuple[str, int]) -> float:
    """Renew a lease no more, and return how long it takes until somebody else has its task."""
    began = time.monotonic()
    while _lease(client, "other")[0] != lease[0] and time.monotonic() - began < 4 * (TTL + SLACK):
        time.sleep(0.1)
    return time.monotonic() - began


def _is_decided(folder: Path, store: Store, url: str, wall: WallClock) -> bool:
    """Let a worker do the rest while the clock goes on jumping."""
    scratch = folder / "worker"
    scratch.mkdir()
    worker = PROCESSES.Process(target=work, args=(url, scratch))
    worker.start()

    def decided() -> bool:
        wall.ahead = HOUR if wall.ahead <= 0 else -HOUR
        with store.read() as snapshot:
            return snapshot.find(StudyRecord)[-1].state is StudyState.DECIDED

    try:
        wait_for(decided, 90)
    finally:
        worker.kill()
        worker.join()
    return True
