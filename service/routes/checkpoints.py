"""Checkpoints: what a run has, and their files."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.token import Scope
from ckptmerge.errors import MissingError
from ckptmerge.storage.records import CheckpointRecord, RunRecord
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire.checkpoints import CheckpointPage, CheckpointResource
from ckptmerge.wire.resource import File, FileName
from ckptmerge.workflow.answers import checkpoint_resource, timestamp
from ckptmerge.workflow.stored import at_step, require
from service.dependencies import Service, State
from service.downloads import blob_response
from service.gate.auth import needs
from service.interface import refusals
from service.routes.runs import MISSING, InPath
from service.routes.transfers import CONDITIONS, RANGES, described, sent

router = APIRouter(prefix="/v1", tags=["checkpoints"])

RAW = "application/octet-stream"

StepInPath = Annotated[int, Path(ge=0, le=2**53, examples=[1600])]

_NO_FILE = "there is no file 'vocab.json' here; there are ['config.json', 'model.safetensors']"


@router.get(
    "/runs/{run}/checkpoints",
    operation_id="list_checkpoints",
    dependencies=[needs(Scope.READ)],
    responses=MISSING,
)
async def list_checkpoints(
    run: InPath,
    service: Service,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> CheckpointPage:
    """List a run's checkpoints as they arrived."""

    def look(snapshot: Snapshot) -> CheckpointPage:
        require(snapshot, RunRecord, run, "run")
        found = snapshot.find(CheckpointRecord, run=run, after=after, limit=limit + 1)
        items = [checkpoint_resource(record) for record in found[:limit]]
        return CheckpointPage(items=items, next=items[-1].id if len(found) > limit else None)

    return await service.read(look)


@router.get(
    "/runs/{run}/checkpoints/{step}",
    operation_id="get_checkpoint",
    dependencies=[needs(Scope.READ)],
    responses=refusals({MissingError: "run 'olmo-1b' has no checkpoint at step 1600"}),
)
async def get_checkpoint(run: InPath, step: StepInPath, service: Service) -> CheckpointResource:
    """Describe the checkpoint that stands at a step, of the latest attempt that has one."""

    def look(snapshot: Snapshot) -> CheckpointResource:
        return checkpoint_resource(at_step(snapshot, run, step))

    return await service.read(look)


@router.head(
    "/runs/{run}/checkpoints/{step}/files/{name}",
    operation_id="head_file_of_step",
    dependencies=[needs(Scope.READ)],
    status_code=307,
    response_class=RedirectResponse,
    responses=refusals({MissingError: _NO_FILE}),
)
@router.get(
    "/runs/{run}/checkpoints/{step}/files/{name}",
    operation_id="get_file_of_step",
    dependencies=[needs(Scope.READ)],
    status_code=307,
    response_class=RedirectResponse,
    responses=refusals({MissingError: _NO_FILE}),
)
async def get_file_of_step(
    run: InPath, step: StepInPath, name: FileName, service: Service
) -> RedirectResponse:
    """Redirect to a file of the step's checkpoint; the address it leads to never changes."""
    found = await get_checkpoint(run, step, service)
    return redirect_to(found.files, name, f"the checkpoint of step {step}")


@router.head(
    "/checkpoints/{checkpoint}/files/{name}",
    operation_id="head_checkpoint_file",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses=described(_NO_FILE),
    openapi_extra=CONDITIONS,
)
@router.get(
    "/checkpoints/{checkpoint}/files/{name}",
    operation_id="get_checkpoint_file",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses=sent(_NO_FILE),
    openapi_extra=RANGES,
)
async def get_checkpoint_file(
    checkpoint: Annotated[str, Path(examples=["c_01JZ"])],
    name: FileName,
    request: Request,
    service: Service,
) -> Response:
    """Send one of a checkpoint's files."""
    record = await service.read(
        lambda snapshot: require(snapshot, CheckpointRecord, checkpoint, "checkpoint")
    )
    if record.removed is not None:
        raise MissingError(
            f"the bytes of checkpoint {record.id} (step {record.step}) were removed on "
            f"{timestamp(record.removed)}; its record stays, and the same bytes sent again bring "
            "it back"
        )
    return file_response(request, service, record.manifest.files, name)


def redirect_to(files: Sequence[File], name: str, whose: str) -> RedirectResponse:
    """Redirect from a name whose file may change to the address of its bytes.

    Raises:
        MissingError: ``whose`` files there are, and none of that name.
    """
    file = next((file for file in files if file.name == name), None)
    if file is None:
        raise MissingError(f"{whose} has no file {name!r}; there are {[f.name for f in files]}")
    return RedirectResponse(file.href, 307, {"Cache-Control": "no-cache"})


def file_response(
    request: Request, service: State, files: tuple[FileEntry, ...], name: str
) -> Response:
    """Send the file of that name.

    Raises:
        MissingError: there is none.
    """
    file = next((file for file in files if file.name == name), None)
    if file is None:
        raise MissingError(f"there is no file {name!r} here; there are {[f.name for f in files]}")
    return blob_response(
        request,
        partial(service.blobs.open, file.digest),
        digest=file.digest,
        filename=name,
        media_type=RAW,
        cache="immutable",
    )
