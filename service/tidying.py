"""Keeps the disk from filling: retention where something has changed, and collection in time."""

from collections.abc import Callable

import structlog

from ckptmerge.domain.study import StudyState
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import CheckpointRecord, RunRecord, StudyRecord
from ckptmerge.storage.store import Snapshot, Store
from ckptmerge.workflow.collect import collect
from ckptmerge.workflow.expire_uploads import expire_uploads
from ckptmerge.workflow.retain import retain

COLLECT_EVERY = 3600.0
"""Seconds between looks for files that nobody came to name."""

LOOK_EVERY = 60.0
"""Seconds between looks on a disk that is nearly full."""

_OVER = (StudyState.DECIDED, StudyState.REFUSED, StudyState.CANCELLED)

_log = structlog.get_logger(__name__)


class Tidying:
    """Removes what runs need no more; call it from one thread, as often as you like.

    Args:
        store: The service's records.
        blobs: Its bytes.
        now: Seconds since 1970.
        new_id: Makes an id.
        grace: Seconds that a file which nothing names stays.
        upload_age: Seconds that an upload in pieces may take.
        free: Bytes that are free on the disk.
        watermark: So many free bytes, and what retention has let go waits no longer.
    """

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        *,
        now: Callable[[], float],
        new_id: Callable[[str], str],
        grace: float,
        upload_age: float,
        free: Callable[[], int],
        watermark: int,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._now = now
        self._new_id = new_id
        self._grace = grace
        self._upload_age = upload_age
        self._free = free
        self._watermark = watermark
        self._seen: dict[str, tuple[int, ...]] = {}
        self._collected: float | None = None

    def __call__(self, changed: bool) -> None:
        """Apply retention where runs have changed, then collect where there may be something.

        Args:
            changed: Whether anything may have happened since the last call.
        """
        since = None if self._collected is None else self._now() - self._collected
        low = self._free() < self._watermark and (since is None or since >= LOOK_EVERY)
        due = since is None or since >= COLLECT_EVERY
        removed = (changed or due) and self._retain(changed=changed, aged=due)
        if removed or due or low:
            self._collect(urgent=low)

    def _retain(self, *, changed: bool, aged: bool) -> bool:
        """Go through runs, and return whether anything went.

        Args:
            changed: Whether to go through those that got a checkpoint, or whose study ended.
            aged: Whether to go through those that keep checkpoints for a time.
        """
        with self._store.read() as snapshot:
            runs = snapshot.find(RunRecord)
            ageing = {run.name for run in runs if run.retention.ttl is not None}
            marks = {run.name: _mark(snapshot, run.name) for run in runs}
        gone = 0
        for run, mark in marks.items():
            if not (changed and self._seen.get(run) != mark) and not (aged and run in ageing):
                continue
            plan = retain(self._store, run, now=self._now(), new_id=self._new_id)
            self._seen[run] = mark
            gone += len(plan.goes)
            if plan.goes:
                _log.info("removed by retention", run=run, items=[item.id for item in plan.goes])
        return gone > 0

    def _collect(self, *, urgent: bool) -> None:
        found = collect(self._store, self._blobs, now=self._now(), grace=self._grace, urgent=urgent)
        if urgent:
            _log.warning(
                "the disk is nearly full: what retention has let go is deleted without grace",
                free=self._free(), watermark=self._watermark, files=found.blobs,
                hint="give runs a retention, or a quota; or add disk",
            )  # fmt: skip
        self._collected = self._now()
        given_up = expire_uploads(
            self._store, self._blobs.partials, now=self._now(), age=self._upload_age
        )
        if given_up:
            _log.info("uploads that were never completed were removed", uploads=given_up)
        if found.blobs:
            _log.info("files deleted", files=found.blobs, bytes=found.bytes)


def _mark(snapshot: Snapshot, run: str) -> tuple[int, ...]:
    """Count what retention may depend on: it changes when a checkpoint comes or a study ends."""
    ended = (snapshot.count(StudyRecord, run=run, state=state) for state in _OVER)
    return snapshot.count(CheckpointRecord, run=run), *ended
