"""The best of a run: what it is, its files, and another put in its place by hand."""

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from ckptmerge.domain.token import Scope
from ckptmerge.errors import InvalidInputError, MissingError, RefusedError
from ckptmerge.storage.records import RunRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.best import Best, NewPin
from ckptmerge.wire.resource import FileName
from ckptmerge.workflow.audit_log import record_act
from ckptmerge.workflow.best import best_of
from ckptmerge.workflow.pin import pin_best, unpin_best
from ckptmerge.workflow.stored import require
from service.dependencies import By, Service
from service.gate.auth import needs
from service.interface import refusals
from service.routes.checkpoints import redirect_to
from service.routes.runs import InPath

router = APIRouter(prefix="/v1/runs/{run}/best", tags=["runs"])

_NONE = "run 'olmo-1b' has no complete checkpoint yet; POST one to /v1/runs/olmo-1b/checkpoints"
_NO_RUN = "there is no run 'olmo-1b'; check the name, and whether this is the service you mean"
_NO_FILE = "the best of 'olmo-1b' has no file 'vocab.json'; there are ['model.safetensors']"
_NO_SUBJECT = (
    "run 'olmo-1b' has no checkpoint 'c_01JZ'; GET /v1/runs/olmo-1b/checkpoints lists those it has"
)
_WHICH = "pin either an 'artifact' or a 'checkpoint', by its id"
_NO_BYTES = "a_01JZ cannot be served: its bytes were removed; name one whose bytes are still there"


@router.get(
    "",
    operation_id="get_best",
    dependencies=[needs(Scope.READ)],
    responses=refusals({MissingError: _NONE}),
)
async def get_best(run: InPath, service: Service) -> Best:
    """Answer what the best weights of the run are, what they gain, and how sure that is."""
    return await service.read(lambda snapshot: _best(snapshot, run))


@router.post(
    "",
    operation_id="pin_best",
    dependencies=[needs(Scope.ADMIN)],
    responses=refusals(
        {MissingError: _NO_SUBJECT, RefusedError: _NO_BYTES, InvalidInputError: _WHICH}
    ),
)
async def pin(run: InPath, new: NewPin, service: Service, by: By) -> Best:
    """Make a promoted merge or a checkpoint the best by hand; the same again changes nothing.

    Studies go on and report, and nothing is promoted until the best is unpinned.
    """

    def change(unit: Unit) -> Best:
        record = require(unit, RunRecord, run, "run")
        pinned = pin_best(
            unit,
            service.blobs,
            record,
            artifact=new.artifact,
            checkpoint=new.checkpoint,
            reason=new.reason,
            now=service.now(),
            new_id=service.new_id,
        )
        if pinned != record:
            what = {"subject": new.artifact or new.checkpoint, "reason": new.reason}
            record_act(unit, by, "pin-best", f"runs/{run}/best", now=service.now(), **what)
        return _best(unit, run)

    return await service.write(change)


@router.delete(
    "",
    status_code=204,
    operation_id="unpin_best",
    dependencies=[needs(Scope.ADMIN)],
    responses=refusals({MissingError: _NO_RUN}),
)
async def unpin(run: InPath, service: Service, by: By) -> None:
    """Let go of what was pinned: what was promoted last is the best again, or the newest."""

    def change(unit: Unit) -> None:
        record = require(unit, RunRecord, run, "run")
        if unpin_best(unit, record, now=service.now(), new_id=service.new_id) != record:
            record_act(unit, by, "unpin-best", f"runs/{run}/best", now=service.now())

    await service.write(change)


@router.head(
    "/files/{name}",
    operation_id="head_best_file",
    dependencies=[needs(Scope.READ)],
    status_code=307,
    response_class=RedirectResponse,
    responses=refusals({MissingError: _NO_FILE}),
)
@router.get(
    "/files/{name}",
    operation_id="get_best_file",
    dependencies=[needs(Scope.READ)],
    status_code=307,
    response_class=RedirectResponse,
    responses=refusals({MissingError: _NO_FILE}),
)
async def get_best_file(run: InPath, name: FileName, service: Service) -> RedirectResponse:
    """Redirect to the file as it is now; the address it leads to never changes its bytes."""
    best = await service.read(lambda snapshot: _best(snapshot, run))
    return redirect_to(best.files, name, f"the best of {run!r}")


def _best(snapshot: Snapshot, run: str) -> Best:
    best = best_of(snapshot, require(snapshot, RunRecord, run, "run"))
    if best is None:
        raise MissingError(
            f"run {run!r} has no complete checkpoint yet; POST one to /v1/runs/{run}/checkpoints"
        )
    return best
