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
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._now = now
        self._new_id = new_id
        self._grace = grace
        self._upload_age = upload_age
        self._seen: dict[str, tuple[int, ...]] = {}
        self._collected: float | None = None

    def __call__(self, changed: bool) -> None:
        """Apply retention where runs have changed, then collect where there may be something.

        Args:
            changed: Whether anything may have happened since the last call.
        """
        removed = changed and self._retain()
        last = self._collected
        if removed or last is None or self._now() - last >= COLLECT_EVERY:
            self._collect()

    def _retain(self) -> bool:
        """Go through the runs that got a checkpoint, or whose study ended; return if any went."""
        with self._store.read() as snapshot:
            marks = {run.name: _mark(snapshot, run.name) for run in snapshot.find(RunRecord)}
        gone = 0
        for run, mark in marks.items():
            if self._seen.get(run) == mark:
                continue
            plan = retain(self._store, run, now=self._now(), new_id=self._new_id)
            self._seen[run] = mark
            gone += len(plan.goes)
            if plan.goes:
                _log.info("removed by retention", run=run, items=[item.id for item in plan.goes])
        return gone > 0

    def _collect(self) -> None:
        found = collect(self._store, self._blobs, now=self._now(), grace=self._grace)
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
