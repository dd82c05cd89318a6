"""Bring records and blobs into line again before a service takes requests.

Bytes are made durable before the row that names them, and rows are deleted together with their
bytes; so after a kill there can be blobs without a row, and after a damaged disk, or somebody's
clean-up by hand, rows without a blob.
"""

from collections.abc import Callable, Collection, Set
from dataclasses import dataclass, replace

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import (
    ArtifactRecord,
    BlobRecord,
    CheckpointRecord,
    EventRecord,
    HeldOutRecord,
    RunRecord,
    StudyRecord,
    TaskRecord,
)
from ckptmerge.storage.store import Store, Unit
from ckptmerge.workflow.blob_records import LOST
from ckptmerge.workflow.cancel import cancel_study, going_on
from ckptmerge.workflow.open_studies import complete_checkpoints
from ckptmerge.workflow.stored import every


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """What was found, and put right as far as that goes."""

    lost: tuple[Digest, ...]
    """Blobs that were on record, and are not there any more."""
    damaged: tuple[str, ...]
    """Ids of checkpoints and merges, and names of held-out sets, that have lost files."""
    unrecorded: int
    """Blobs that had no row, and have one now: what nothing names is collected in time."""


def reconcile(
    store: Store, blobs: BlobStore, *, now: float, new_id: Callable[[str], str]
) -> Reconciled:
    """Compare every record with the blobs that are there; call while nobody else writes.

    A row without bytes is dropped. A checkpoint that has lost a file says so under ``missing`` and
    enters no window, until the same bytes are sent again; a merge is marked as removed, and is no
    longer the best. A study that needs what was lost is cancelled: no worker could go on with it.

    Args:
        store: Where records are.
        blobs: Where bytes are.
        now: Seconds since 1970.
        new_id: Makes an id.
    """
    present = {digest.hex for digest in blobs}
    unrecorded = set(present)
    lost: list[Digest] = []
    with store.write() as unit:
        for row in every(unit, BlobRecord):
            unrecorded.discard(row.hex)
            if row.hex not in present:
                lost.append(Digest(row.hex))
        for digest in lost:
            unit.delete(BlobRecord, digest.hex)
        for found in sorted(unrecorded):
            size = blobs.size(Digest(found)) or 0
            unit.insert(BlobRecord(hex=found, size=size, created=now))
        damaged = _Damage(unit, present, now, new_id).mark()
    return Reconciled(lost=tuple(lost), damaged=tuple(damaged), unrecorded=len(unrecorded))


@dataclass(frozen=True)
class _Damage:
    """What records name and is not there."""

    unit: Unit
    present: Set[str]
    now: float
    new_id: Callable[[str], str]

    def mark(self) -> list[str]:
        """Mark whatever has lost files, and end what cannot go on; return what was marked."""
        sets = [
            record.name for record in every(self.unit, HeldOutRecord) if self._lost([record.file])
        ]
        checkpoints = [
            record.id for record in every(self.unit, CheckpointRecord) if self._checkpoint(record)
        ]
        merges = [record.id for record in every(self.unit, ArtifactRecord) if self._merge(record)]
        damaged = [*sets, *checkpoints, *merges]
        for run in list(every(self.unit, RunRecord)):
            self._run(run, frozenset(damaged))
        return damaged

    def _lost(self, files: Collection[FileEntry]) -> list[str]:
        return [file.name for file in files if file.digest.hex not in self.present]

    def _checkpoint(self, record: CheckpointRecord) -> bool:
        lost = self._lost(record.manifest.files) if record.removed is None else []
        missing = dict.fromkeys((*record.missing, *(f"{LOST}{name}" for name in lost)))
        if tuple(missing) == record.missing:
            return False
        self.unit.update(replace(record, missing=tuple(missing)))
        data = {"checkpoint": record.id, "step": record.step, "files": lost}
        self._event(record.run, "checkpoint-lost", data)
        return True

    def _merge(self, record: ArtifactRecord) -> bool:
        lost = self._lost(record.manifest.files) if record.removed is None else []
        if not lost:
            return False
        self.unit.update(replace(record, removed=self.now))
        self._event(record.run, "artifact-lost", {"artifact": record.id, "files": lost})
        return True

    def _run(self, run: RunRecord, damaged: Collection[str]) -> None:
        """Let go of what a run relied on."""
        changed = run
        if run.best in damaged:
            changed = replace(changed, best=None, promotion=None)
            self._event(run.name, "best-lost", {"before": run.best})
        if run.pin is not None and run.pin.subject in damaged:
            changed = replace(changed, pin=None)
            self._event(run.name, "best-lost", {"before": run.pin.subject})
        if self._lost(run.files):
            kept = tuple(file for file in run.files if file.digest.hex in self.present)
            changed = replace(changed, files=kept)
            self._event(run.name, "run-files-lost", {"files": self._lost(run.files)})
        # Those that were lost are not counted any more; without this the next ones would not be.
        counted = min(run.considered, len(complete_checkpoints(self.unit, run)))
        changed = replace(changed, considered=counted)
        if changed != run:
            self.unit.update(changed)
        for study in going_on(self.unit, run.name):
            if self._needs(study) & set(damaged):
                reason = "files that it needs were lost; what is left is searched with the next one"
                cancel_study(
                    self.unit, study, reason=reason, now=self.now, new_id=self.new_id
                )  # fmt: skip

    def _needs(self, study: StudyRecord) -> set[str]:
        orders = [task.task.order for task in self.unit.find(TaskRecord, study=study.id)]
        written = self.unit.find(ArtifactRecord, study=study.id)
        subjects = {order.subject for order in orders if order.subject is not None}
        ahead = set() if study.ahead is None else {study.ahead}
        return {*study.checkpoints, *ahead, *subjects, *(a.id for a in written), study.held_out}

    def _event(self, run: str, kind: str, data: dict[str, object]) -> None:
        self.unit.insert(
            EventRecord(id=self.new_id("v"), run=run, kind=kind, data=data, created=self.now)
        )
