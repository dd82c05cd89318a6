"""Runs, the documents that judge them, and what is best of them."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.exceptions import HTTPException

from ckptmerge.config.study import StudySpec
from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.retention import Retention
from ckptmerge.domain.run import Era, Run
from ckptmerge.domain.token import Scope
from ckptmerge.errors import (
    CheckpointFormatError,
    InvalidInputError,
    MissingError,
    NameTakenError,
)
from ckptmerge.formats.side_file_gate import SIDE_FILE_LIMIT, check_side_files
from ckptmerge.formats.side_files import is_side_file
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import (
    HeldOutRecord,
    RunRecord,
    WindowPolicy,
)
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.resource import FileName, Resource, RunName
from ckptmerge.wire.runs import NewRun, RetentionSpec, RunChange, RunPage, RunResource
from ckptmerge.workflow.admit import complete
from ckptmerge.workflow.answers import run_resource
from ckptmerge.workflow.audit_log import record_act
from ckptmerge.workflow.blob_files import laid_out
from ckptmerge.workflow.blob_records import put_files_on_record, put_on_record
from ckptmerge.workflow.change_run import change_run as make_change
from ckptmerge.workflow.stored import require
from service.dependencies import By, Service, State
from service.downloads import lists_tag
from service.gate.auth import needs
from service.interface import refusals
from service.routes.transfers import BYTES, UPLOAD
from service.uploads import announced, receive

router = APIRouter(prefix="/v1/runs", tags=["runs"])

MISSING = refusals(
    {
        MissingError: "there is no run 'olmo-1b'; check the name, and whether this is the service "
        "you mean"
    }
)
InPath = Annotated[RunName, Path(examples=["olmo-1b"])]

DEFAULT_SET = "default"
"""Name of the held-out set that the service was started with."""


@router.post(
    "",
    status_code=201,
    operation_id="create_run",
    dependencies=[needs(Scope.CHECKPOINT_WRITE)],
    responses={
        200: {"model": RunResource, "description": "The run is there, with these settings."},
        **refusals(
            {
                MissingError: "there is no held-out set 'web-and-code' to judge run 'olmo-1b' on; "
                "upload one with curl -T held-out.jsonl "
                "http://HOST/v1/held-out-sets/web-and-code and name it in POST /v1/runs",
                NameTakenError: "run 'olmo-1b' exists with other settings; GET /v1/runs/olmo-1b "
                "shows them",
            }
        ),
    },
)
async def create_run(new: NewRun, service: Service, by: By, response: Response) -> RunResource:
    """Make a run; the same settings again change nothing."""

    def change(unit: Unit) -> tuple[RunResource, bool]:
        known = unit.get(RunRecord, new.name)
        record = known or unit.insert(new_run(unit, service, new))
        if known is not None and not _same(known, new):
            raise NameTakenError(
                f"run {new.name!r} exists with other settings; GET /v1/runs/{new.name} shows them"
            )
        if known is None:
            what = {"held_out": record.held_out}
            record_act(unit, by, "create-run", f"runs/{new.name}", now=service.now(), **what)
        return run_resource(unit, record), known is None

    resource, made = await service.write(change)
    response.status_code = 201 if made else 200
    return resource


def new_run(unit: Unit, service: State, new: NewRun) -> RunRecord:
    """Return the record of a run that is about to be made.

    Raises:
        MissingError: the held-out set it names, or the service's own, is not there.
    """
    name = new.held_out or DEFAULT_SET
    held_out = unit.get(HeldOutRecord, name)
    if held_out is None:
        raise MissingError(
            f"there is no held-out set {name!r} to judge run {new.name!r} on; upload one with "
            f"curl -T held-out.jsonl http://HOST/v1/held-out-sets/{name} and name it in "
            "POST /v1/runs"
        )
    window = new.window or service.settings.window
    retention = new.retention or RetentionSpec()
    return RunRecord(
        name=new.name,
        run=Run(new.name, Era(held_out.digest)),
        held_out=name,
        study=(new.study or service.settings.study).model_dump(mode="json"),
        window=WindowPolicy(size=window.size, every=window.every, minimum=window.minimum),
        retention=retention.retention(),
        created=service.now(),
    )


def _same(record: RunRecord, new: NewRun) -> bool:
    """Say whether a run has every setting that is asked for."""
    study = None if new.study is None else new.study.model_dump(mode="json")
    window = new.window
    return (
        new.held_out in {None, record.held_out}
        and study in (None, dict(record.study))
        and (window is None or WindowPolicy(**window.model_dump()) == record.window)
        and (new.retention is None or new.retention.retention() == record.retention)
    )


@router.get("", operation_id="list_runs", dependencies=[needs(Scope.READ)])
async def list_runs(
    service: Service,
    after: RunName | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> RunPage:
    """List runs as they were made."""

    def look(snapshot: Snapshot) -> RunPage:
        found = snapshot.find(RunRecord, after=after, limit=limit + 1)
        items = [run_resource(snapshot, record) for record in found[:limit]]
        return RunPage(items=items, next=items[-1].name if len(found) > limit else None)

    return await service.read(look)


@router.get("/{run}", operation_id="get_run", dependencies=[needs(Scope.READ)], responses=MISSING)
async def get_run(run: InPath, service: Service, response: Response) -> RunResource:
    """Describe a run; its ETag is what PATCH may be made to depend on."""
    resource = await service.read(
        lambda snapshot: run_resource(snapshot, require(snapshot, RunRecord, run, "run"))
    )
    response.headers["ETag"] = _tag(resource)
    return resource


@router.patch(
    "/{run}",
    operation_id="change_run",
    dependencies=[needs(Scope.ADMIN)],
    responses=refusals(
        {
            MissingError: "there is no held-out set 'web-2026'; check the name, and whether this "
            "is the service you mean",
            InvalidInputError: "a budget of 4 passes cannot measure 8 checkpoints and one merge; "
            "use at least 9",
            412: "run 'olmo-1b' has changed meanwhile; GET it, and send its ETag as If-Match",
        }
    ),
)
async def change_run(
    run: InPath,
    change: RunChange,
    service: Service,
    response: Response,
    *,
    by: By,
    if_match: Annotated[str | None, Header(description="ETag that the run must have.")] = None,
) -> RunResource:
    """Change a run's settings for studies to come; other documents begin a new era.

    What is left out stays as it is, also within ``study``, ``window`` and ``retention``.
    """

    def apply(unit: Unit) -> RunResource:
        record = require(unit, RunRecord, run, "run")
        tag = _tag(run_resource(unit, record))
        if if_match is not None and not lists_tag(if_match.strip(), tag, weak=False):
            raise HTTPException(
                412,
                f"run {run!r} has changed meanwhile; GET it, and send its ETag as If-Match",
                {"ETag": tag},
            )
        changed = _changed(unit, service, record, change)
        if changed != record:
            what = change.model_dump(mode="json", exclude_unset=True)
            record_act(unit, by, "change-run", f"runs/{run}", now=service.now(), **what)
        return run_resource(unit, changed)

    resource = await service.write(apply)
    service.wake()
    response.headers["ETag"] = _tag(resource)
    return resource


def _changed(unit: Unit, service: State, record: RunRecord, change: RunChange) -> RunRecord:
    """Lay a change over the settings that the run has, and make it."""
    present = run_resource(unit, record)
    study = window = retention = None
    if change.study is not None:
        study = StudySpec.model_validate(_merged(present.study.model_dump(), change.study))
    if change.window is not None:
        window = WindowPolicy(**_merged(present.window.model_dump(), change.window))
    if change.retention is not None:
        retention = Retention(**_merged(present.retention.model_dump(), change.retention))
    return make_change(
        unit,
        record,
        held_out=change.held_out,
        study=None if study in (None, present.study) else study.model_dump(mode="json"),
        window=window,
        retention=retention,
        now=service.now(),
        new_id=service.new_id,
    )


@router.put(
    "/{run}/files/{name}",
    operation_id="put_run_file",
    dependencies=[needs(Scope.CHECKPOINT_WRITE)],
    openapi_extra={"requestBody": {"required": True, **BYTES}},
    responses=refusals(
        {
            **UPLOAD,
            MissingError: "there is no run 'olmo-1b'; check the name, and whether this is the "
            "service you mean",
            InvalidInputError: "train.py is no side file of a model; configuration and tokenizer "
            "files are",
            CheckpointFormatError: "config.json is not an acceptable side file: 'auto_map' names "
            "code to run, which is never done here; take it out",
        }
    ),
)
async def put_run_file(
    run: InPath, name: FileName, request: Request, service: Service, by: By
) -> RunResource:
    """Give a run a side file, for checkpoints that bring none of that name, also those there."""
    if not is_side_file(name):
        raise InvalidInputError(
            f"{name} is no side file of a model; configuration and tokenizer files are"
        )
    await service.read(lambda snapshot: require(snapshot, RunRecord, run, "run"))
    limits = service.settings.limits
    size = announced(request, at_most=SIDE_FILE_LIMIT)
    digest = await receive(request, service.blobs, size=size, expected=None, deadlines=limits)
    file = FileEntry(name, size, digest)
    await service.write(lambda unit: put_on_record(unit, service.blobs, digest, now=service.now()))
    await service.off_loop(lambda: _check(service.blobs, file))

    def change(unit: Unit) -> RunResource:
        record = require(unit, RunRecord, run, "run")
        others = tuple(other for other in record.files if other.name != name)
        put_files_on_record(unit, service.blobs, [file], now=service.now())
        changed = unit.update(replace(record, files=(*others, file)))
        if file not in record.files:
            place, what = f"runs/{run}/files/{name}", {"digest": str(digest)}
            record_act(unit, by, "put-run-file", place, now=service.now(), **what)
        complete(unit, service.blobs, changed, now=service.now(), new_id=service.new_id)
        return run_resource(unit, changed)

    resource = await service.write(change)
    service.wake()
    return resource


def _check(blobs: BlobStore, file: FileEntry) -> None:
    with laid_out(blobs, [file]) as folder:
        check_side_files(folder)


def _tag(resource: RunResource) -> str:
    """Return the entity tag of a run as it is described: equal tags are equal descriptions."""
    return f'"{Digest.of_json(resource.model_dump(mode="json")).hex}"'


def _merged(part: dict[str, Any], change: Resource | StudySpec) -> dict[str, Any]:
    """Return a part of a run's settings with the fields that a change names."""
    return {**part, **change.model_dump(mode="json", exclude_unset=True)}
