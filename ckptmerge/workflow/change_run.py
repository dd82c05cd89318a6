"""Change how a run is searched and judged from now on; other documents begin a new era."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ckptmerge.domain.retention import Retention
from ckptmerge.storage.records import EventRecord, HeldOutRecord, RunRecord, WindowPolicy
from ckptmerge.storage.store import Unit
from ckptmerge.workflow.cancel import cancel_study, going_on
from ckptmerge.workflow.open_studies import open_due
from ckptmerge.workflow.stored import require


def change_run(
    unit: Unit,
    run: RunRecord,
    *,
    held_out: str | None = None,
    study: Mapping[str, Any] | None = None,
    window: WindowPolicy | None = None,
    retention: Retention | None = None,
    now: float,
    new_id: Callable[[str], str],
) -> RunRecord:
    """Give a run other settings, for the studies opened from now on; the same ones change nothing.

    Where the settings make a study due, it is opened. Documents other than the present ones begin
    a new era: alpha restarts, the study that goes on is cancelled, for its numbers are of the old
    documents, and the newest window is searched again. The best stays best, and is measured on the
    new documents by the next study, as one of the rivals that a merge must beat.

    Args:
        unit: Where the run lives.
        run: The run.
        held_out: Name of the held-out set that judges it; None leaves this and the others as
            they are.
        study: How to search, as a whole StudySpec says it.
        window: Which windows are due.
        retention: What keeps its bytes.
        now: Seconds since 1970.
        new_id: Makes an id.

    Raises:
        MissingError: there is no such held-out set.
        InvalidInputError: a study that is due cannot be opened like this.
    """
    name = run.held_out if held_out is None else held_out
    changed = replace(
        run,
        held_out=name,
        run=run.run.judged_on(require(unit, HeldOutRecord, name, "held-out set").digest),
        study=run.study if study is None else dict(study),
        window=run.window if window is None else window,
        retention=run.retention if retention is None else retention,
    )
    if changed == run:
        return run
    if changed.run != run.run:
        changed = _in_new_era(unit, changed, before=run, now=now, new_id=new_id)
    unit.update(changed)
    open_due(unit, changed, now=now, new_id=new_id)
    return require(unit, RunRecord, run.name, "run")


def _in_new_era(
    unit: Unit, run: RunRecord, *, before: RunRecord, now: float, new_id: Callable[[str], str]
) -> RunRecord:
    """End what is being measured on the old documents, and make the newest window due again."""
    reason = f"its documents no longer judge the run, those of {run.held_out!r} do: a new era"
    for study in going_on(unit, run.name):
        cancel_study(unit, study, reason=reason, now=now, new_id=new_id)
    era = before.era + 1
    data = {
        "era": era,
        "held_out": run.held_out,
        "digest": str(run.run.era.held_out),
        "before": before.held_out,
        "best": before.best,
    }
    unit.insert(EventRecord(id=new_id("v"), run=run.name, kind="era-begun", data=data, created=now))
    return replace(run, era=era, considered=max(before.considered - run.window.every, 0))
