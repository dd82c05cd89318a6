"""Arrivals: checkpoints registered by manifest over blobs, by path, or as one file's raw bytes."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from ckptmerge.domain.audit_log import Actor
from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.token import Scope
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
from ckptmerge.storage.records import HeldOutRecord, RunRecord
from ckptmerge.storage.store import Unit
from ckptmerge.wire import examples
from ckptmerge.wire.checkpoints import CheckpointResource, NewCheckpoint
from ckptmerge.wire.runs import NewRun
from ckptmerge.workflow.admit import Admission, admit
from ckptmerge.workflow.answers import checkpoint_resource
from ckptmerge.workflow.begin_upload import still_to_come
from service.dependencies import By, Service, State
from service.gate.auth import needs
from service.interface import Responses, refusals
from service.routes.checkpoints import RAW, StepInPath
from service.routes.runs import DEFAULT_SET, InPath, new_run
from service.routes.transfers import BYTES, UPLOAD
from service.sources import take_in
from service.uploads import announced, receive

router = APIRouter(prefix="/v1", tags=["checkpoints"])

Attempt = Annotated[
    str | None,
    Query(
        pattern="^next$",
        description="Training was rolled back to before this step: begin a new attempt with it.",
    ),
]

Supersede = Annotated[
    bool,
    Query(
        description="Take the place of another checkpoint at this step, whose bytes were wrong. "
        "That one stays on record for the studies and merges that were made of it."
    ),
]

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
            StepExistsError: "run 'olmo-1b' has other bytes at step 1600 (checkpoint c_01JZ). If "
            "training was rolled back and goes on from an earlier step, post with ?attempt=next; "
            "if those bytes were wrong and these take their place, with ?supersede=true",
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
    dependencies=[needs(Scope.CHECKPOINT_WRITE)],
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
    attempt: Attempt = None,
    supersede: Supersede = False,
    by: By,
) -> CheckpointResource:
    """Register a checkpoint: a manifest over blobs, a path, or one file's raw bytes.

    Raw bytes (``curl -T model.safetensors '…/checkpoints?step=1000'``) take configuration and
    tokenizer from the run. An unknown run is made where the service has a held-out set.
    """
    return await _register(
        run, request, service, response,
        step=step, tokens=tokens, attempt=attempt, supersede=supersede, by=by,
    )  # fmt: skip


@router.put(
    "/runs/{run}/checkpoints/{step}",
    status_code=201,
    operation_id="put_checkpoint",
    dependencies=[needs(Scope.CHECKPOINT_WRITE)],
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
    attempt: Attempt = None,
    supersede: Supersede = False,
    by: By,
) -> CheckpointResource:
    """Register the checkpoint of this step; the same bytes again change nothing."""
    return await _register(
        run, request, service, response,
        step=step, tokens=tokens, attempt=attempt, supersede=supersede, by=by,
        put=True,
    )  # fmt: skip


async def _register(
    run: str,
    request: Request,
    service: State,
    response: Response,
    *,
    step: int | None,
    tokens: int | None,
    attempt: str | None,
    supersede: bool,
    by: Actor,
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
            supersede=supersede,
            in_place=new is not None and new.in_place,
            by=by,
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
    if new.in_place and new.source is None:
        raise InvalidInputError(
            "'in_place' is said of a 'source'; files that were uploaded are kept by the service"
        )
    if new.source is not None:
        roots = service.settings.source_roots
        return await service.off_loop(
            partial(take_in, new.source, roots, service.blobs, in_place=new.in_place)
        )
    return [FileEntry(f.name, f.size, Digest.parse(f.digest)) for f in new.files or ()]


async def _raw_file(request: Request, service: State) -> FileEntry:
    """Take the body as the checkpoint's only file."""
    limits = service.settings.limits
    size = announced(request, at_most=limits.largest_blob)
    beside = await service.read(still_to_come)
    digest = await receive(
        request, service.blobs, size=size, expected=None, deadlines=limits, beside=beside
    )
    return FileEntry(WEIGHTS, size, digest)
