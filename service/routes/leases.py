"""Leases: how workers come by work, keep it, and hand in what came of it."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.task import Order, TaskKind, TaskState
from ckptmerge.domain.task import Outcome as DomainOutcome
from ckptmerge.errors import (
    InvalidInputError,
    LeaseLostError,
    MissingError,
    OutcomeConflictError,
)
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.storage.blobs import BlobStore, read
from ckptmerge.storage.records import (
    ArtifactRecord,
    CheckpointRecord,
    HeldOutRecord,
    StudyRecord,
    TaskRecord,
)
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.leases import (
    LeasedCheckpoint,
    LeasedSet,
    LeaseRequest,
    LeaseResource,
    Outcome,
    Renewal,
    Renewed,
)
from ckptmerge.wire.resource import File
from ckptmerge.workflow.blob_records import put_files_on_record, put_on_record
from ckptmerge.workflow.stored import require
from ckptmerge.workflow.tasks import (
    finish_lease,
    give_back_lease,
    lease_task,
    renew_lease,
)
from service.dependencies import Service, State
from service.interface import Details, refusals

router = APIRouter(prefix="/v1/leases", tags=["leases"])

_LOST: Details = {
    MissingError: "there is no lease 't_01JZ'; check the name, and whether this is the service "
    "you mean",
    LeaseLostError: "the lease of task t_01JZ ran out, and another worker may hold it; throw the "
    "work away and ask for new work",
}


@router.post(
    "",
    status_code=201,
    operation_id="create_lease",
    responses={204: {"description": "There is no work."}},
    response_model=LeaseResource,
)
async def create_lease(
    wanted: LeaseRequest, request: Request, service: Service
) -> LeaseResource | Response:
    """Ask for work; waits up to ``wait`` seconds for some."""
    deadline = service.clock() + wanted.wait
    while True:
        service.workers[wanted.worker] = service.clock()
        changed = service.changed
        lease = await service.write(partial(_lease, service=service, wanted=wanted))
        left = deadline - service.clock()
        if lease is not None:
            return lease
        if left <= 0 or service.draining:
            return Response(status_code=204)
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), left)
        if await request.is_disconnected():
            # Nobody would hear of the lease, and its task would wait until it runs out.
            return Response(status_code=204)


def _lease(unit: Unit, *, service: State, wanted: LeaseRequest) -> LeaseResource | None:
    """Lease the first task whose files are there; one whose files are lost fails at once."""
    kinds = [TaskKind(kind) for kind in wanted.kinds]
    ttl = service.settings.limits.lease_ttl
    while True:
        record = lease_task(unit, wanted.worker, kinds, clock=service.clock(), ttl=ttl)
        if record is None:
            return None
        try:
            return _resource(unit, service, record)
        except MissingError as error:
            lost = DomainOutcome(status="failed", reason=str(error))
            finish_lease(unit, record.id, record.task.fence, lost, now=service.now())
            service.wake()


def _resource(snapshot: Snapshot, service: State, record: TaskRecord) -> LeaseResource:
    study = require(snapshot, StudyRecord, record.study, "study")
    order, task = record.task.order, record.task
    held_out = require(snapshot, HeldOutRecord, study.held_out, "held-out set")
    return LeaseResource.model_validate(
        {
            "id": task.id,
            "fence": task.fence,
            "expires_in": service.settings.limits.lease_ttl,
            "kind": task.kind.value,
            "study": study.id,
            "trial": task.trial,
            "checkpoints": _subjects(snapshot, service, study, order),
            "weights": None if order.weights is None else list(order.weights.values),
            "dtype": study.spec.dtype,
            "context": study.context,
            "held_out": _documents(service, held_out, order.split or Split.SEARCH),
            "repeat": order.repeat,
        }
    )


def _subjects(
    snapshot: Snapshot, service: State, study: StudyRecord, order: Order
) -> list[LeasedCheckpoint]:
    """Name what a task needs: one subject, or the study's whole window."""
    keys = study.checkpoints if order.subject is None else (order.subject,)
    return [_leased(snapshot, service, key, index) for index, key in enumerate(keys)]


def _leased(snapshot: Snapshot, service: State, key: str, index: int) -> LeasedCheckpoint:
    if key.startswith("a_"):
        artifact = require(snapshot, ArtifactRecord, key, "artifact")
        manifest, step, content = artifact.manifest, 0, artifact.manifest.digest
    else:
        checkpoint = require(snapshot, CheckpointRecord, key, "checkpoint")
        manifest, step = checkpoint.manifest, checkpoint.step
        content = manifest.content
    return LeasedCheckpoint(
        id=key,
        weight_index=index,
        step=step,
        content=str(content),
        files=[_file(service, file) for file in manifest.files],
    )


def _file(service: State, file: FileEntry) -> File:
    """Describe a blob, which a worker may have whether or not it is part of anything visible."""
    path = service.blobs.path(file.digest)
    return File(
        name=file.name,
        size=file.size,
        digest=str(file.digest),
        href=f"/v1/blobs/{file.digest}",
        path=None if path is None else str(path),
    )


def _documents(service: State, record: HeldOutRecord, split: Split) -> LeasedSet:
    return LeasedSet.model_validate(
        {
            "digest": str(record.digest),
            "split": split.value,
            "file": _file(service, record.file),
        }
    )


@router.put("/{lease}", operation_id="renew_lease", responses=refusals(_LOST))
async def renew(lease: str, renewal: Renewal, service: Service) -> Renewed:
    """Keep a lease; renew at a third of its time. ``cancel`` means that nobody wants the work."""
    ttl = service.settings.limits.lease_ttl

    def change(unit: Unit) -> Renewed:
        record = require(unit, TaskRecord, lease, "lease")
        if record.task.state is TaskState.CANCELLED and record.task.fence == renewal.fence:
            return Renewed(expires_in=0.0, directive="cancel")
        held = renew_lease(unit, lease, renewal.fence, clock=service.clock(), ttl=ttl)
        service.workers[held.task.worker or ""] = service.clock()
        return Renewed(expires_in=ttl, directive="continue")

    return await service.write(change)


@router.post(
    "/{lease}/outcome",
    operation_id="finish_lease",
    responses=refusals(
        {
            **_LOST,
            OutcomeConflictError: "task t_01JZ was finished with another outcome; the first stands",
            InvalidInputError: "not a file of per-document scores (header too large); score the "
            "documents again",
        }
    ),
)
async def finish(lease: str, outcome: Outcome, service: Service) -> Renewed:
    """Hand in what came of a lease; the same outcome again changes nothing."""
    found = _domain(outcome)
    await service.off_loop(lambda: _require_usable(service.blobs, found))

    def take(unit: Unit) -> None:
        finish_lease(unit, lease, outcome.fence, found, now=service.now())
        _put_on_record(unit, service, found)

    await service.write(take)
    service.wake()
    return Renewed(expires_in=0.0, directive="continue")


@router.delete(
    "/{lease}", status_code=204, operation_id="give_back_lease", responses=refusals(_LOST)
)
async def give_back(
    lease: str, fence: Annotated[int, Query(ge=1, le=2**53)], service: Service
) -> None:
    """Give a task back undone, so that another worker has it at once; again changes nothing."""
    await service.write(lambda unit: give_back_lease(unit, lease, fence))
    service.tell_workers()


def _domain(outcome: Outcome) -> DomainOutcome:
    return DomainOutcome(
        status=outcome.status,
        reason=outcome.reason,
        scores=None if outcome.scores is None else Digest.parse(outcome.scores),
        repeated=None if outcome.repeated is None else Digest.parse(outcome.repeated),
        files=tuple(
            FileEntry(file.name, file.size, Digest.parse(file.digest))
            for file in outcome.files or ()
        ),
        seconds=outcome.seconds.model_dump(),
        bytes_written=outcome.bytes_written,
    )


def _put_on_record(unit: Unit, service: State, outcome: DomainOutcome) -> None:
    """Hold on to an outcome's blobs: scores for good, for studies to come will ask for them.

    Raises:
        MissingError: a blob has been collected meanwhile.
    """
    put_files_on_record(unit, service.blobs, outcome.files, now=service.now())
    for digest in (outcome.scores, outcome.repeated):
        if digest is not None:
            put_on_record(unit, service.blobs, digest, now=service.now(), lasting=True)


def _require_usable(blobs: BlobStore, outcome: DomainOutcome) -> None:
    """Check that an outcome's blobs are there, and that scores are scores.

    Raises:
        MissingError: a blob was not uploaded.
        InvalidInputError: the scores cannot be read.
    """
    for digest in (outcome.scores, outcome.repeated):
        if digest is not None:
            DocumentScores.from_bytes(read(blobs, digest))
    for file in outcome.files:
        if blobs.size(file.digest) != file.size:
            raise MissingError(f"blob {file.digest} ({file.name}) was not uploaded")
