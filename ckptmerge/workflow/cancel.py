"""End a study before its verdict: its tasks end with it, and the best stays as it is."""

from collections.abc import Callable
from dataclasses import replace

from ckptmerge.domain.study import StudyState
from ckptmerge.errors import IllegalTransitionError
from ckptmerge.storage.records import EventRecord, StudyRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.workflow.tasks import cancel_tasks

GOING = (StudyState.SEARCHING, StudyState.FROZEN)
"""States of a study that goes on."""


def cancel_study(
    unit: Unit, study: StudyRecord, *, reason: str, now: float, new_id: Callable[[str], str]
) -> StudyRecord:
    """End a study that goes on, and say why.

    Raises:
        IllegalTransitionError: it is over.
    """
    if study.state not in GOING:
        raise IllegalTransitionError(f"study {study.id} is {study.state}, nothing is left to end")
    ended = unit.update(replace(study, state=StudyState.CANCELLED, stopped=reason))
    cancel_tasks(unit, study.id)
    data = {"study": study.id, "reason": reason}
    unit.insert(
        EventRecord(id=new_id("v"), run=study.run, kind="study-cancelled", data=data, created=now)
    )
    return ended


def going_on(snapshot: Snapshot, run: str) -> list[StudyRecord]:
    """Return the run's studies that have not come to an end."""
    return [s for state in GOING for s in snapshot.find(StudyRecord, run=run, state=state)]
