"""Retention of a run: give up the bytes that nobody is going to need; the history stays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ckptmerge.domain.retention import HeldCheckpoint, HeldMerge, Holdings, Retention, decide_fates
from ckptmerge.errors import RefusedError
from ckptmerge.storage.records import (
    ArtifactRecord,
    CheckpointRecord,
    EventRecord,
    RunRecord,
    StudyRecord,
    TaskRecord,
)
from ckptmerge.storage.store import Snapshot, Store, Unit
from ckptmerge.workflow.cancel import going_on
from ckptmerge.workflow.collect import named_blobs
from ckptmerge.workflow.pin import served
from ckptmerge.workflow.stored import at_step, require


@dataclass(frozen=True, kw_only=True)
class Item:
    """A checkpoint or merge, what becomes of its bytes, and why."""

    id: str
    kind: Literal["checkpoint", "merge"]
    step: int
    """Of a merge: that of its newest parent."""
    bytes: int
    """Of all its files, also those that others share."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a policy comes to, for everything that a run holds now."""

    retention: Retention
    goes: tuple[Item, ...]
    stays: tuple[Item, ...]


def plan_retention(
    snapshot: Snapshot, run: RunRecord, retention: Retention | None = None, *, now: float
) -> Plan:
    """Say what a run's retention, or another one, would remove now; nothing is changed."""
    policy = run.retention if retention is None else retention
    checkpoints = [c for c in snapshot.find(CheckpointRecord, run=run.name) if c.removed is None]
    merges = [a for a in snapshot.find(ArtifactRecord, run=run.name) if a.removed is None]
    parents = {
        merge.id: require(snapshot, StudyRecord, merge.study, "study").checkpoints
        for merge in merges
    }
    holdings = Holdings(
        attempt=run.attempt,
        # A window ends with every so many-th checkpoint, not with the newest.
        window=run.window.size + run.window.every - 1,
        checkpoints=tuple(_held_checkpoint(checkpoint, now) for checkpoint in checkpoints),
        merges=tuple(_held_merge(merge, parents[merge.id]) for merge in merges),
        best=frozenset(filter(None, (run.best, served(run)))),
        needed=_needed(snapshot, run),
    )
    fates = {fate.id: fate for fate in decide_fates(policy, holdings)}
    items = [_item("checkpoint", c, c.step, fates[c.id].reason) for c in checkpoints]
    for merge in merges:
        newest = require(snapshot, CheckpointRecord, parents[merge.id][-1], "checkpoint")
        items.append(_item("merge", merge, newest.step, fates[merge.id].reason))
    return Plan(
        retention=policy,
        goes=tuple(item for item in items if fates[item.id].goes),
        stays=tuple(item for item in items if not fates[item.id].goes),
    )


def retain(
    store: Store,
    run: str,
    *,
    now: float,
    new_id: Callable[[str], str],
    on_removal: Callable[[Unit, Plan], None] | None = None,
) -> Plan:
    """Give up what the run's retention lets go; its bytes are collected once nothing names them.

    The records stay: scores, recipes and history are not touched.

    Args:
        store: Where the run lives.
        run: Its name.
        now: Seconds since 1970.
        new_id: Makes an id.
        on_removal: Called in the unit in which something goes, with what it is.

    Raises:
        MissingError: there is no such run.
    """
    with store.read() as snapshot:
        plan = plan_retention(snapshot, require(snapshot, RunRecord, run, "run"), now=now)
    if not plan.goes:
        return plan
    with store.write() as unit:
        # Decided anew: a study may have been opened, or a pin set, since the look.
        plan = plan_retention(unit, require(unit, RunRecord, run, "run"), now=now)
        for item in plan.goes:
            _give_up(unit, run, item, now=now, new_id=new_id)
        if plan.goes and on_removal is not None:
            on_removal(unit, plan)
    return plan


def freed_by(snapshot: Snapshot, plan: Plan) -> int:
    """Return how many bytes the disk gets back: those of blobs that nothing else names."""
    going = {item.id for item in plan.goes}
    sizes: dict[str, int] = {}
    for item in plan.goes:
        manifest = _record(snapshot, item).manifest
        sizes |= {file.digest.hex: file.size for file in manifest.files}
    staying = named_blobs(snapshot, without=going) if sizes else set[str]()
    return sum(size for digest, size in sizes.items() if digest not in staying)


def pin_checkpoint(unit: Unit, run: str, step: int, *, pinned: bool) -> CheckpointRecord:
    """Say that a checkpoint stays, or take it back: the one of the latest attempt at that step.

    Raises:
        MissingError: there is no such checkpoint.
        RefusedError: its bytes are gone, so there is nothing to hold on to.
    """
    record = at_step(unit, run, step)
    if pinned and record.removed is not None:
        raise RefusedError(
            f"the bytes of checkpoint {record.id} were removed; send them again, then pin it"
        )
    return record if record.pinned == pinned else unit.update(replace(record, pinned=pinned))


def _needed(snapshot: Snapshot, run: RunRecord) -> Mapping[str, str]:
    """Return what studies that are going on still look at: windows, rivals, their own merges."""
    needed: dict[str, str] = {}
    for study in going_on(snapshot, run.name):
        tasks = snapshot.find(TaskRecord, study=study.id)
        written = snapshot.find(ArtifactRecord, study=study.id)
        subjects = [t.task.order.subject for t in tasks if t.task.order.subject is not None]
        ahead = () if study.ahead is None else (study.ahead,)
        keys = (*study.checkpoints, *ahead, *subjects, *(artifact.id for artifact in written))
        needed |= dict.fromkeys(keys, study.id)
    return needed


def _held_checkpoint(record: CheckpointRecord, now: float) -> HeldCheckpoint:
    return HeldCheckpoint(
        id=record.id,
        attempt=record.attempt,
        step=record.step,
        complete=not record.missing,
        pinned=record.pinned,
        superseded=record.superseded_by is not None,
        age=now - record.created,
        bytes=_size(record),
    )


def _held_merge(record: ArtifactRecord, parents: tuple[str, ...]) -> HeldMerge:
    return HeldMerge(
        id=record.id, parents=parents, promoted=record.promoted, pinned=record.pinned,
        bytes=_size(record),
    )  # fmt: skip


def _item(
    kind: Literal["checkpoint", "merge"],
    record: CheckpointRecord | ArtifactRecord,
    step: int,
    reason: str,
) -> Item:
    return Item(id=record.id, kind=kind, step=step, bytes=_size(record), reason=reason)


def _size(record: CheckpointRecord | ArtifactRecord) -> int:
    return sum(file.size for file in record.manifest.files)


def _record(snapshot: Snapshot, item: Item) -> CheckpointRecord | ArtifactRecord:
    if item.kind == "merge":
        return require(snapshot, ArtifactRecord, item.id, "artifact")
    return require(snapshot, CheckpointRecord, item.id, "checkpoint")


def _give_up(unit: Unit, run: str, item: Item, *, now: float, new_id: Callable[[str], str]) -> None:
    record = _record(unit, item)
    if isinstance(record, ArtifactRecord):
        unit.update(replace(record, removed=now))
    else:
        unit.update(replace(record, removed=now))
    what = "artifact" if item.kind == "merge" else "checkpoint"
    data = {what: item.id, "step": item.step, "reason": item.reason}
    unit.insert(
        EventRecord(id=new_id("v"), run=run, kind=f"{what}-removed", data=data, created=now)
    )
