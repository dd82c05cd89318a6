"""The desk of a study: asks workers for what only they can give, and comes back when it is there.

Everything a study has come to is in the store, so a service that was killed goes on where it was,
and asks for nothing twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ckptmerge.domain.observation import Split
from ckptmerge.domain.task import Order, TaskKind, TaskState
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import RefusedError
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.storage.blobs import BlobStore, read
from ckptmerge.storage.records import EventRecord, StudyRecord, TaskRecord
from ckptmerge.storage.store import Store, Unit
from ckptmerge.workflow.stored import StoredStudy, require
from ckptmerge.workflow.tasks import add_task


class WaitingError(Exception):
    """A task's outcome is needed before the study can go on; never seen outside."""


@dataclass(frozen=True)
class Desk:
    """Tasks, scores and events of studies."""

    store: Store
    blobs: BlobStore
    now: Callable[[], float]
    """Seconds since 1970."""
    new_id: Callable[[str], str]

    def files(self, stored: StoredStudy, subject: str, split: Split) -> DocumentScores:
        """Return the scores of a checkpoint's or artifact's own bytes.

        Raises:
            WaitingError: they are not there yet.
            RefusedError: nobody could score them.
        """
        order = Order(subject=subject, split=split)
        return self.scores(self.done(stored, TaskKind.CERTIFY, f"{split}-{subject}", order))

    def candidate(
        self, stored: StoredStudy, name: str, weights: MergeWeights, split: Split
    ) -> DocumentScores:
        """Return the scores of a merge formed in memory; raises as ``files`` does."""
        order = Order(weights=weights, split=split)
        return self.scores(self.done(stored, TaskKind.EVALUATE, f"{split}-{name}", order))

    def all(self, readers: Mapping[str, Callable[[], DocumentScores]]) -> dict[str, DocumentScores]:
        """Read them all; what is missing is asked for at once, before any of it is waited for.

        Raises:
            WaitingError: some are not there yet.
        """
        found: dict[str, DocumentScores] = {}
        for name, reader in readers.items():
            try:
                found[name] = reader()
            except WaitingError:
                continue
        if len(found) < len(readers):
            raise WaitingError
        return found

    def done(self, stored: StoredStudy, kind: TaskKind, name: str, order: Order) -> TaskRecord:
        """Return a finished task; queue it where it was never asked for.

        Raises:
            WaitingError: it is not over yet.
            RefusedError: nobody could do it.
        """
        record = stored.task(name) or self._queued(stored, kind, name, order)
        if not record.task.over:
            raise WaitingError
        outcome = record.task.outcome
        if record.task.state is not TaskState.DONE or outcome is None or outcome.status != "ok":
            reason = record.task.reason or (outcome.reason if outcome else None) or "no reason"
            raise RefusedError(f"{name} could not be done: {reason}")
        return record

    def _queued(self, stored: StoredStudy, kind: TaskKind, name: str, order: Order) -> TaskRecord:
        """Queue a task, unless it was queued since the study was read."""
        with self.store.write() as unit:
            self.require_going_on(unit, stored)
            tasks = unit.find(TaskRecord, study=stored.record.id)
            known = next((task for task in tasks if task.task.name == name), None)
            return known or add_task(
                unit, key=self.new_id("l"), study=stored.record.id, kind=kind, name=name,
                order=order, now=self.now(),
            )  # fmt: skip

    def scores(self, record: TaskRecord) -> DocumentScores:
        """Return the scores that a task came back with.

        Raises:
            RefusedError: it came back without.
        """
        outcome = record.task.outcome
        if outcome is None or outcome.scores is None:
            raise RefusedError(f"{record.task.name} came back without scores")
        return DocumentScores.from_bytes(read(self.blobs, outcome.scores))

    def require_going_on(self, unit: Unit, stored: StoredStudy) -> None:
        """Check that nobody has ended the study since it was read.

        Raises:
            WaitingError: somebody has; whoever looks again will see it.
        """
        record = require(unit, StudyRecord, stored.record.id, "study")
        if record.state is not stored.record.state:
            raise WaitingError

    def emit(self, unit: Unit, stored: StoredStudy, kind: str, **data: object) -> None:
        """Record that something happened to the study."""
        unit.insert(
            EventRecord(
                id=self.new_id("v"), run=stored.run.name, kind=kind, created=self.now(),
                data={"study": stored.record.id, **data},
            )
        )  # fmt: skip
