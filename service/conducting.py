"""The thread that moves studies on whenever something has changed, and minds the clock."""

import threading
from collections.abc import Callable

import structlog

from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import TaskState
from ckptmerge.errors import CkptmergeError, DiskFailedError, OutOfSpaceError
from ckptmerge.storage.records import RunRecord, StudyRecord, TaskRecord
from ckptmerge.workflow.conduct import Conductor
from ckptmerge.workflow.open_studies import open_due
from ckptmerge.workflow.tasks import reap, regrace

PERIOD = 1.0
"""Seconds between looks at leases that may have run out."""

_log = structlog.get_logger(__name__)


class Conducting:
    """Runs a conductor; a context manager.

    Args:
        conductor: Takes one study one step.
        clock: The clock of leases.
        ttl: Seconds of a lease.
        longest: Seconds for which it may be renewed.
    """

    def __init__(
        self,
        conductor: Conductor,
        *,
        clock: Callable[[], float],
        ttl: float,
        longest: float | None = None,
    ) -> None:
        self._conductor = conductor
        self._desk = conductor.desk
        self._clock = clock
        self._ttl = ttl
        self._longest = longest
        self.on_change: Callable[[], None] = _nobody
        """Told, from the thread, that there may be new work for workers."""
        self.tidy: Callable[[bool], None] = _nothing
        """Called, on the thread, when no study can move; told whether anything has changed."""
        self._something = threading.Event()
        self._stopping = False
        self._woken = True
        self._thread = threading.Thread(target=self._run, name="ckptmerge-conduct", daemon=True)

    def __enter__(self) -> "Conducting":
        with self._desk.store.write() as unit:
            regrace(unit, clock=self._clock(), ttl=self._ttl, longest=self._longest)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self.wake()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether studies are being moved on."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Say that something has changed; from any thread."""
        self._woken = True
        self._something.set()

    def _run(self) -> None:
        while not self._stopping:
            self._something.clear()
            try:
                changed = self._woken
                while self._round() and not self._stopping:
                    changed = True
                if not self._stopping:
                    self.tidy(changed)
            except Exception:  # noqa: BLE001 - one broken study must not stop the others
                _log.exception("moving studies on failed; trying again")
            self._something.wait(PERIOD)

    def _round(self) -> bool:
        """Take every running study one step; return whether any of them moved."""
        with self._desk.store.read() as snapshot:
            leased = snapshot.find(TaskRecord, state=TaskState.LEASED)
            states = (StudyState.SEARCHING, StudyState.FROZEN)
            going = [s.id for state in states for s in snapshot.find(StudyRecord, state=state)]
        expired = any(r.task.expire(self._clock()) is not r.task for r in leased) and self._reap()
        moved = [key for key in going if not self._stopping and self._advance(key)]
        opened = self._open_due() if moved or (self._woken and not going) else False
        self._woken = False
        if moved or opened or expired:
            self.on_change()
        return bool(moved or opened)

    def _advance(self, key: str) -> bool:
        """Take a study one step; where that fails unforeseen, the others go on all the same."""
        try:
            return self._conductor.advance(key)
        except Exception:  # noqa: BLE001 - one broken study must not stop the others
            _log.exception("moving a study on failed; trying again", study=key)
            return False

    def _reap(self) -> bool:
        with self._desk.store.write() as unit:
            return bool(reap(unit, clock=self._clock()))

    def _open_due(self) -> bool:
        """Open studies that became due while another one of their run was going on."""
        opened = False
        with self._desk.store.read() as snapshot:
            runs = [record.name for record in snapshot.find(RunRecord)]
        for name in runs:
            try:
                with self._desk.store.write() as unit:
                    record = unit.get(RunRecord, name)
                    study = record and open_due(
                        unit, record, now=self._desk.now(), new_id=self._desk.new_id
                    )
                    opened = opened or study is not None
            except (OutOfSpaceError, DiskFailedError):
                raise  # tried again, until the disk can
            except CkptmergeError as error:
                _log.warning("no study could be opened", run=name, reason=str(error))
        return opened


def _nobody() -> None:
    """Tell nobody."""


def _nothing(_changed: bool) -> None:
    """Leave everything as it is."""
