"""Checkpoints: registered by manifest over blobs, by path, or as the raw bytes of one file."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    CheckpointFormatError,
    IncompatibleCheckpointsError,
    InvalidInputError,
    MissingError,
    NonFiniteTensorError,
    SourceRefusedError,
    StepExistsError,
)
from ckptmerge.formats.manifest import WEIGHTS
from ckptmerge.storage.records import CheckpointRecord, HeldOutRecord, RunRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire import examples
from ckptmerge.wire.checkpoints import CheckpointPage, CheckpointResource, NewCheckpoint
from ckptmerge.wire.resource import File, FileName
from ckptmerge.wire.runs import NewRun
from ckptmerge.workflow.admit import Admission, admit
from ckptmerge.workflow.answers import checkpoint_resource, timestamp
from ckptmerge.workflow.stored import require
from service.dependencies import Service, State
from service.downloads import blob_response
from service.interface import Responses, refusals
from service.routes.runs import DEFAULT_SET, MISSING, InPath, new_run
from service.routes.transfers import BYTES, CONDITIONS, RANGES, UPLOAD, described, sent
from service.sources import take_in
from service.uploads import announced, receive

router = APIRouter(prefix="/v1", tags=["checkpoints"])

RAW = "application/octet-stream"

StepInPath = Annotated[int, Path(ge=0, le=2**53, examples=[1600])]

_NO_FILE = "there is no file 'vocab.json' here; there are ['config.json', 'model.safetensors']"

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": NewCheckpoint.model_json_schema(
                    ref_template="#/components/schemas/{model}"
                ),
                "examples": {
                    "manifest": {"value": examples.NEW_CHECKPOINT},
                    "source": {"value": examples.NEW_CHECKPOINT_FROM_SOURCE},
                },
            },
            **BYTES["content"],
        },
    }
}


_REGISTERED: Responses = {
    200: {"model": CheckpointResource, "description": "The same bytes are known already."},
    **refusals(
        {
            **UPLOAD,
            SourceRefusedError: "/etc does not lie beneath a --source-root of this service, "
            "or leads through a link; allowed are /runs",
            MissingError: "there is no run 'olmo-1b'; make it with POST /v1/runs "
            '{"name": "olmo-1b", "held_out": NAME} after uploading its held-out set to '
            "/v1/held-out-sets/NAME",
            StepExistsError: "run 'olmo-1b' has other bytes at step 1600 already; after a "
            "rollback register them with ?attempt=next, which begins a new attempt",
            IncompatibleCheckpointsError: "not a checkpoint of run 'olmo-1b': tensor 'lm_head' "
            "is new; give another model a run of its own",
            InvalidInputError: "a checkpoint has 'files' or a 'source'; give one of them",
            CheckpointFormatError: "model.safetensors is not an acceptable safetensors file: "
            "it ends within its header; save it again",
            NonFiniteTensorError: "tensor 'lm_head' holds NaN or infinity; send a checkpoint "
            "from before the training diverged",
        }
    ),
}
"""What registering a checkpoint may answer."""


@router.post(
    "/runs/{run}/checkpoints",
    status_code=201,
    operation_id="create_checkpoint",
    openapi_extra=_BODY,
    responses=_REGISTERED,
)
async def create_checkpoint(
    run: InPath,
    request: Request,
    service: Service,
    response: Response,
    *,
    step: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    tokens: Annotated[int | None, Query(ge=0)] = None,
    attempt: Annotated[str | None, Query(pattern="^next$")] = None,
) -> CheckpointResource:
    """Register a checkpoint: a manifest over blobs, a path, or one file's raw bytes.

    Raw bytes (``curl -T model.safetensors '…/checkpoints?step=1000'``) take configuration and
    tokenizer from the run. An unknown run is made where the service has a held-out set.
    """
    return await _register(
        run, request, service, response, step=step, tokens=tokens, attempt=attempt
    )


@router.put(
    "/runs/{run}/checkpoints/{step}",
    status_code=201,
    operation_id="put_checkpoint",
    openapi_extra=_BODY,
    responses=_REGISTERED,
)
async def put_checkpoint(
    run: InPath,
    step: StepInPath,
    request: Request,
    service: Service,
    response: Response,
    *,
    tokens: Annotated[int | None, Query(ge=0)] = None,
    attempt: Annotated[str | None, Query(pattern="^next$")] = None,
) -> CheckpointResource:
    """Register the checkpoint of this step; the same bytes again change nothing."""
    return await _register(
        run, request, service, response, step=step, tokens=tokens, attempt=attempt, put=True
    )


async def _register(
    run: str,
    request: Request,
    service: State,
    response: Response,
    *,
    step: int | None,
    tokens: int | None,
    attempt: str | None,
    put: bool = False,
) -> CheckpointResource:
    await _make_run_where_possible(service, run)
    if request.headers.get("content-type", "").partition(";")[0].strip() == RAW:
        new = None
        if step is None:
            raise InvalidInputError(
                "which training step is this? Raw bytes cannot say; name it in the address: "
                f"/v1/runs/{run}/checkpoints?step=1000"
            )
        files = [await _raw_file(request, service)]
    else:
        new = await _new_checkpoint(request)
        if put and new.step != step:
            raise InvalidInputError(
                f"the address says step {step} and the body says step {new.step}; which is it?"
            )
        files = await _files_of(new, service)
    # Reading every byte takes long; nobody's lease may wait for it.
    admission = await service.off_loop(
        partial(
            admit,
            service.store,
            service.blobs,
            run=run,
            step=new.step if new is not None else step,
            tokens=new.tokens if new is not None else tokens,
            files=files,
            next_attempt=attempt == "next",
            now=service.now(),
            new_id=service.new_id,
        )
    )
    return _answer(admission, service, response)


def _answer(admission: Admission, service: State, response: Response) -> CheckpointResource:
    response.status_code = 201 if admission.new else 200
    response.headers["Location"] = f"/v1/checkpoints/{admission.record.id}"
    service.wake()
    return checkpoint_resource(admission.record)


async def _make_run_where_possible(service: State, run: str) -> None:
    """Make an unknown run that the service's own held-out set can judge.

    Raises:
        MissingError: there is no such run, and nothing to judge it on.
    """

    def change(unit: Unit) -> None:
        if unit.get(RunRecord, run) is not None:
            return
        if unit.get(HeldOutRecord, DEFAULT_SET) is None:
            raise MissingError(
                f"there is no run {run!r}; make it with POST /v1/runs "
                f'{{"name": "{run}", "held_out": NAME}} after uploading its held-out set to '
                "/v1/held-out-sets/NAME"
            )
        unit.insert(new_run(unit, service, NewRun(name=run)))

    if await service.read(lambda snapshot: snapshot.get(RunRecord, run)) is None:
        await service.write(change)


async def _new_checkpoint(request: Request) -> NewCheckpoint:
    try:
        return NewCheckpoint.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError(
            [{**found, "loc": ("body", *found["loc"])} for found in error.errors()]
        ) from error


async def _files_of(new: NewCheckpoint, service: State) -> list[FileEntry]:
    """Return the files of a manifest, or take in those at a path."""
    if (new.files is None) == (new.source is None):
        raise InvalidInputError("a checkpoint has 'files' or a 'source'; give one of them")
    if new.source is not None:
        roots = service.settings.source_roots
        return await service.off_loop(partial(take_in, new.source, roots, service.blobs))
    return [FileEntry(f.name, f.size, Digest.parse(f.digest)) for f in new.files or ()]


async def _raw_file(request: Request, service: State) -> FileEntry:
    """Take the body as the checkpoint's only file."""
    size = announced(request, at_most=service.settings.limits.largest_blob)
    digest = await receive(request, service.blobs, size=size, expected=None)
    return FileEntry(WEIGHTS, size, digest)


@router.get("/runs/{run}/checkpoints", operation_id="list_checkpoints", responses=MISSING)
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
    responses=refusals({MissingError: "run 'olmo-1b' has no checkpoint at step 1600"}),
)
async def get_checkpoint(run: InPath, step: StepInPath, service: Service) -> CheckpointResource:
    """Describe the checkpoint at a step, of the latest attempt that has one."""

    def look(snapshot: Snapshot) -> CheckpointResource:
        found = snapshot.find(CheckpointRecord, run=run, step=step)
        if not found:
            raise MissingError(f"run {run!r} has no checkpoint at step {step}")
        return checkpoint_resource(max(found, key=lambda record: record.attempt))

    return await service.read(look)


@router.head(
    "/runs/{run}/checkpoints/{step}/files/{name}",
    operation_id="head_file_of_step",
    status_code=307,
    response_class=RedirectResponse,
    responses=refusals({MissingError: _NO_FILE}),
)
@router.get(
    "/runs/{run}/checkpoints/{step}/files/{name}",
    operation_id="get_file_of_step",
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
    response_class=Response,
    responses=described(_NO_FILE),
    openapi_extra=CONDITIONS,
)
@router.get(
    "/checkpoints/{checkpoint}/files/{name}",
    operation_id="get_checkpoint_file",
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
