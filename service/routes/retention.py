"""Retention: what a run's policy would remove, doing it now, and pins against it."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query

from ckptmerge.domain.audit_log import Actor
from ckptmerge.domain.retention import Retention
from ckptmerge.domain.token import Scope
from ckptmerge.errors import MissingError, RefusedError
from ckptmerge.storage.records import CheckpointRecord, RunRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.checkpoints import CheckpointResource
from ckptmerge.wire.retention import RetentionItem, RetentionResource
from ckptmerge.wire.runs import RetentionSpec
from ckptmerge.workflow.answers import checkpoint_resource
from ckptmerge.workflow.audit_log import record_act
from ckptmerge.workflow.collect import collect
from ckptmerge.workflow.retain import Item, Plan, freed_by, pin_checkpoint, plan_retention, retain
from ckptmerge.workflow.stored import require
from service.dependencies import By, Service, State
from service.gate.auth import needs
from service.interface import refusals
from service.routes.runs import InPath

router = APIRouter(prefix="/v1/runs/{run}", tags=["runs"])

Number = Annotated[int | None, Query(ge=1, le=2**53)]
Step = Annotated[int, Path(ge=0, le=2**53, examples=[1000])]

_NO_RUN = "there is no run 'olmo-1b'; check the name, and whether this is the service you mean"
_NO_STEP = "run 'olmo-1b' has no checkpoint at step 1000"
_NO_BYTES = "the bytes of checkpoint c_01JZ were removed; send them again, then pin it"


@router.get(
    "/retention",
    operation_id="preview_retention",
    dependencies=[needs(Scope.READ)],
    responses=refusals({MissingError: _NO_RUN}),
)
async def preview(
    run: InPath,
    service: Service,
    *,
    keep_last: Number = None,
    keep_every: Number = None,
    keep_best: Number = None,
    ttl: Number = None,
    quota: Number = None,
) -> RetentionResource:
    """Say what the run's retention would remove now, and what holds the rest; nothing is removed.

    Any of the numbers makes it another policy, in place of the run's own.
    """
    other = Retention(
        keep_last=keep_last, keep_every=keep_every, keep_best=keep_best, ttl=ttl, quota=quota
    )

    def look(snapshot: Snapshot) -> RetentionResource:
        record = require(snapshot, RunRecord, run, "run")
        policy = None if other == Retention() else other
        plan = plan_retention(snapshot, record, policy, now=service.now())
        return _resource(service, run, plan, freed_by(snapshot, plan), applied=False)

    return await service.read(look)


@router.post(
    "/retention",
    operation_id="apply_retention",
    dependencies=[needs(Scope.ADMIN)],
    responses=refusals({MissingError: _NO_RUN}),
)
async def apply(run: InPath, service: Service, by: By) -> RetentionResource:
    """Remove now what the run's retention lets go, and delete what nothing needs any more.

    The service does the same by itself after every checkpoint and every study.
    """
    return await service.off_loop(partial(_apply, service, run, by))


@router.put(
    "/checkpoints/{step}/pin",
    operation_id="pin_checkpoint",
    dependencies=[needs(Scope.ADMIN)],
    responses=refusals({MissingError: _NO_STEP, RefusedError: _NO_BYTES}),
)
async def pin(run: InPath, step: Step, service: Service, by: By) -> CheckpointResource:
    """Keep the checkpoint at a step, of the latest attempt that has one, under any policy."""
    return await _set_pin(service, run, step, by, pinned=True)


@router.delete(
    "/checkpoints/{step}/pin",
    operation_id="unpin_checkpoint",
    dependencies=[needs(Scope.ADMIN)],
    responses=refusals({MissingError: _NO_STEP}),
)
async def unpin(run: InPath, step: Step, service: Service, by: By) -> CheckpointResource:
    """Leave the checkpoint to the run's retention again."""
    return await _set_pin(service, run, step, by, pinned=False)


async def _set_pin(
    service: State, run: str, step: int, by: Actor, *, pinned: bool
) -> CheckpointResource:
    def change(unit: Unit) -> CheckpointResource:
        before = unit.find(CheckpointRecord, run=run, step=step)
        record = pin_checkpoint(unit, run, step, pinned=pinned)
        if record not in before:
            verb = "pin-checkpoint" if pinned else "unpin-checkpoint"
            record_act(unit, by, verb, f"runs/{run}/checkpoints/{step}", now=service.now())
        return checkpoint_resource(record)

    return await service.write(change)


def _apply(service: State, run: str, by: Actor) -> RetentionResource:
    def put_on_record(unit: Unit, plan: Plan) -> None:
        gone = [item.id for item in plan.goes]
        record_act(unit, by, "apply-retention", f"runs/{run}", now=service.now(), removed=gone)

    plan = retain(
        service.store, run, now=service.now(), new_id=service.new_id, on_removal=put_on_record
    )
    with service.store.read() as snapshot:
        freed = freed_by(snapshot, plan)
    grace = service.settings.limits.blob_grace
    collect(service.store, service.blobs, now=service.now(), grace=grace)
    return _resource(service, run, plan, freed, applied=True)


def _resource(
    service: State, run: str, plan: Plan, freed: int, *, applied: bool
) -> RetentionResource:
    return RetentionResource(
        run=run,
        policy=RetentionSpec.of(plan.retention),
        applied=applied,
        goes=[_item(item) for item in plan.goes],
        stays=[_item(item) for item in plan.stays],
        bytes=freed,
        grace=service.settings.limits.blob_grace,
    )


def _item(item: Item) -> RetentionItem:
    return RetentionItem(
        id=item.id, kind=item.kind, step=item.step, bytes=item.bytes, reason=item.reason
    )
