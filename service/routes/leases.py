"""Leases: how workers come by work, keep it, and hand in what came of it."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.task import Failure, Order, TaskKind, TaskState
from ckptmerge.domain.task import Outcome as DomainOutcome
from ckptmerge.domain.token import Scope
from ckptmerge.errors import (
    InvalidInputError,
    LeaseLostError,
    MissingError,
    OutcomeConflictError,
)
from ckptmerge.storage.records import (
    ArtifactRecord,
    CheckpointRecord,
    EventRecord,
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
from ckptmerge.workflow.vet import require_same_as_others, vet
from service.dependencies import Service, State
from service.gate.auth import needs
from service.interface import Details, refusals
from service.line import Place
from service.roster import STRIKES

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
    dependencies=[needs(Scope.TRIAL)],
    responses={204: {"description": "There is no work."}},
    response_model=LeaseResource,
)
async def create_lease(
    wanted: LeaseRequest, request: Request, service: Service
) -> LeaseResource | Response:
    """Ask for work; waits up to ``wait`` seconds for some."""
    deadline = service.clock() + wanted.wait
    with service.line.place() as place:
        service.workers.hear(wanted.worker)
        while True:
            lease, more = await service.write(partial(_lease, service=service, wanted=wanted))
            place.looked(more=more)
            if lease is not None:
                return lease
            if not await _called(place, request, service, wanted.worker, deadline):
                return Response(status_code=204)


async def _called(
    place: Place, request: Request, service: State, worker: str, deadline: float
) -> bool:
    """Wait for the call to look again; whoever waits is heard of meanwhile."""
    patience, called = service.settings.limits.lease_ttl / 3, False
    while not called:
        left = deadline - service.clock()
        if service.draining or left <= 0:
            return False
        called = await place.called(min(left, patience))
        if await request.is_disconnected():
            # Nobody would hear of the lease, and its task would wait until it runs out.
            return False
        service.workers.hear(worker)
    return not service.draining


def _lease(
    unit: Unit, *, service: State, wanted: LeaseRequest
) -> tuple[LeaseResource | None, bool]:
    """Lease the first task whose files are there, and say whether others are left for others."""
    lease = _leased_to(unit, service, wanted)
    return lease, unit.count(TaskRecord, state=TaskState.QUEUED) > 0


def _leased_to(unit: Unit, service: State, wanted: LeaseRequest) -> LeaseResource | None:
    """Lease the first task whose files are there; one whose files are lost fails at once."""
    kinds = [TaskKind(kind) for kind in wanted.kinds]
    limits, alone = service.settings.limits, not service.workers.has_others(wanted.worker)
    while alone or not service.workers.is_quarantined(wanted.worker):
        record = lease_task(
            unit, wanted.worker, kinds, clock=service.clock(), ttl=limits.lease_ttl,
            longest=limits.longest_task, alone=alone,
        )  # fmt: skip
        if record is None:
            return None
        try:
            lease = _resource(unit, service, record)
        except MissingError as error:
            lost = DomainOutcome(status="failed", reason=str(error))
            finish_lease(unit, record.id, record.task.fence, lost, now=service.now())
            service.wake()
            continue
        _pardon(unit, service, wanted.worker, record)
        return lease
    return None


def _pardon(unit: Unit, service: State, worker: str, record: TaskRecord) -> None:
    """Let a worker out of quarantine that is given work because nobody else is left."""
    if service.workers.is_quarantined(worker):
        service.workers.pardon(worker)
        reason = "nobody else is there, and the study would wait for nothing"
        _tell(unit, service, record, "quarantine-ended", worker=worker, reason=reason)


def _tell(unit: Unit, service: State, record: TaskRecord, kind: str, **data: object) -> None:
    """Record an event of the study that a task is of."""
    study = require(unit, StudyRecord, record.study, "study")
    unit.insert(
        EventRecord(
            id=service.new_id("v"), run=study.run, kind=kind, created=service.now(),
            data={"study": study.id, **data},
        )
    )  # fmt: skip


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


@router.put(
    "/{lease}",
    operation_id="renew_lease",
    dependencies=[needs(Scope.TRIAL)],
    responses=refusals(_LOST),
)
async def renew(lease: str, renewal: Renewal, service: Service) -> Renewed:
    """Keep a lease; renew at a third of its time. ``cancel`` means that nobody wants the work."""
    ttl = service.settings.limits.lease_ttl

    def change(unit: Unit) -> Renewed:
        record = require(unit, TaskRecord, lease, "lease")
        if record.task.state is TaskState.CANCELLED and record.task.fence == renewal.fence:
            return Renewed(expires_in=0.0, directive="cancel")
        held = renew_lease(unit, lease, renewal.fence, clock=service.clock(), ttl=ttl)
        service.workers.hear(held.task.worker or "")
        left = max((held.task.expires or 0.0) - service.clock(), 0.0)
        return Renewed(expires_in=min(left, ttl), directive="continue")

    return await service.write(change)


@router.post(
    "/{lease}/outcome",
    operation_id="finish_lease",
    dependencies=[needs(Scope.TRIAL)],
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
    try:
        await _taken(service, lease, outcome)
    except InvalidInputError as error:
        # No other try of this worker would be better: the attempt is over, and it hears why.
        unusable = DomainOutcome(status="failed", code=Failure.UNUSABLE, reason=str(error))
        await service.write(
            lambda unit: finish_lease(unit, lease, outcome.fence, unusable, now=service.now())
        )
        raise
    finally:
        service.wake()
        service.tell_workers()
    return Renewed(expires_in=0.0, directive="continue")


async def _taken(service: State, lease: str, outcome: Outcome) -> None:
    """Take an outcome that can be used, and note who can do what others cannot.

    Raises:
        InvalidInputError: it cannot be used.
    """
    asked = await service.read(lambda snapshot: require(snapshot, TaskRecord, lease, "lease"))
    given = _domain(service, outcome)
    found = await service.off_loop(lambda: vet(service.blobs, asked.task, given))

    def take(unit: Unit) -> tuple[TaskRecord, TaskRecord]:
        before = require(unit, TaskRecord, lease, "lease")
        require_same_as_others(unit, service.blobs, before.task, found)
        after = finish_lease(unit, lease, outcome.fence, found, now=service.now())
        _put_on_record(unit, service, found)
        return before, after

    before, after = await service.write(take)
    if after.state == TaskState.DONE and before.state != TaskState.DONE:
        await _judge_workers(service, before)


async def _judge_workers(service: State, done: TaskRecord) -> None:
    """Note that a task could be done, and put into quarantine who fails at one after the other.

    Args:
        service: Whose workers they are.
        done: The task, as it was before its outcome came in.
    """
    tried = done.task.tried
    # Who comes after the lease ran out is the last that tried.
    worker = done.task.worker or (tried[-1] if tried else None)
    for fallen in service.workers.done(worker, where_failed=tried):
        tell = partial(
            _tell, service=service, record=done, kind="worker-quarantined", worker=fallen,
            reason=f"failed {STRIKES} tasks in a row that others then did",
        )  # fmt: skip
        await service.write(tell)


@router.delete(
    "/{lease}",
    status_code=204,
    operation_id="give_back_lease",
    dependencies=[needs(Scope.TRIAL)],
    responses=refusals(_LOST),
)
async def give_back(
    lease: str, fence: Annotated[int, Query(ge=1, le=2**53)], service: Service
) -> None:
    """Give a task back undone, so that another worker has it at once; again changes nothing."""
    await service.write(lambda unit: give_back_lease(unit, lease, fence))
    service.tell_workers()


def _domain(service: State, outcome: Outcome) -> DomainOutcome:
    return DomainOutcome(
        status=outcome.status,
        reason=service.kept_words(outcome.reason),
        code=None if outcome.code is None else Failure(outcome.code),
        log=service.kept_words(outcome.log),
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
