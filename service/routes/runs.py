"""Runs, the documents that judge them, and what is best of them."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from ckptmerge.config.study import StudySpec
from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.run import Era, Run
from ckptmerge.errors import InvalidInputError, MissingError, NameTakenError
from ckptmerge.formats.side_files import is_side_file
from ckptmerge.storage.records import (
    HeldOutRecord,
    RunRecord,
    WindowPolicy,
)
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.best import Best
from ckptmerge.wire.resource import FileName, RunName
from ckptmerge.wire.runs import NewRun, RunPage, RunResource, WindowPolicySpec
from ckptmerge.workflow.admit import complete
from ckptmerge.workflow.answers import best_of, run_resource
from ckptmerge.workflow.stored import require
from service.dependencies import Service, State
from service.problems import Problem
from service.uploads import announced, receive

router = APIRouter(prefix="/v1/runs", tags=["runs"])

Responses = dict[int | str, dict[str, Any]]
"""What an operation may answer, for its documentation."""

PROBLEM: dict[str, Any] = {"model": Problem, "content": {"application/problem+json": {}}}
MISSING: Responses = {404: {**PROBLEM, "description": "There is no such run."}}
InPath = Annotated[RunName, Path(examples=["olmo-1b"])]

DEFAULT_SET = "default"
"""Name of the held-out set that the service was started with."""


@router.post(
    "",
    status_code=201,
    operation_id="create_run",
    responses={
        404: {**PROBLEM, "description": "There is no such held-out set."},
        409: {**PROBLEM, "description": "The run exists, with other settings."},
    },
)
async def create_run(new: NewRun, service: Service, response: Response) -> RunResource:
    """Make a run; the same settings again change nothing."""

    def change(unit: Unit) -> tuple[RunResource, bool]:
        known = unit.get(RunRecord, new.name)
        record = known or unit.insert(new_run(unit, service, new))
        if known is not None and not _same(known, new):
            raise NameTakenError(
                f"run {new.name!r} exists with other settings; GET /v1/runs/{new.name} shows them"
            )
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
    window = new.window or WindowPolicySpec()
    return RunRecord(
        name=new.name,
        run=Run(new.name, Era(held_out.digest)),
        held_out=name,
        study=(new.study or StudySpec()).model_dump(mode="json"),
        window=WindowPolicy(size=window.size, every=window.every, minimum=window.minimum),
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
    )


@router.get("", operation_id="list_runs")
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


@router.get("/{run}", operation_id="get_run", responses=MISSING)
async def get_run(run: InPath, service: Service) -> RunResource:
    """Describe a run."""
    return await service.read(
        lambda snapshot: run_resource(snapshot, require(snapshot, RunRecord, run, "run"))
    )


@router.put("/{run}/files/{name}", operation_id="put_run_file", responses=MISSING)
async def put_run_file(
    run: InPath, name: FileName, request: Request, service: Service
) -> RunResource:
    """Give a run a side file, for checkpoints that bring none of that name, also those there."""
    if not is_side_file(name):
        raise InvalidInputError(
            f"{name} is no side file of a model; configuration and tokenizer files are"
        )
    await service.read(lambda snapshot: require(snapshot, RunRecord, run, "run"))
    size = announced(request, at_most=service.settings.limits.largest_json)
    digest = await receive(request, service.blobs, size=size, expected=None)

    def change(unit: Unit) -> RunResource:
        record = require(unit, RunRecord, run, "run")
        others = tuple(file for file in record.files if file.name != name)
        changed = unit.update(replace(record, files=(*others, FileEntry(name, size, digest))))
        complete(unit, service.blobs, changed, now=service.now(), new_id=service.new_id)
        return run_resource(unit, changed)

    resource = await service.write(change)
    service.wake()
    return resource


@router.get(
    "/{run}/best",
    operation_id="get_best",
    responses={404: {**PROBLEM, "description": "There is no such run, or nothing in it yet."}},
)
async def get_best(run: InPath, service: Service) -> Best:
    """Answer what the best weights of the run are, what they gain, and how sure that is."""
    return await service.read(lambda snapshot: _best(snapshot, run))


@router.head(
    "/{run}/best/files/{name}",
    operation_id="head_best_file",
    status_code=307,
    response_class=RedirectResponse,
    responses={404: {**PROBLEM, "description": "There is no such run or file."}},
)
@router.get(
    "/{run}/best/files/{name}",
    operation_id="get_best_file",
    status_code=307,
    response_class=RedirectResponse,
    responses={404: {**PROBLEM, "description": "There is no such run or file."}},
)
async def get_best_file(run: InPath, name: FileName, service: Service) -> RedirectResponse:
    """Redirect to the file as it is now; the address it leads to never changes its bytes."""
    best = await service.read(lambda snapshot: _best(snapshot, run))
    file = next((file for file in best.files if file.name == name), None)
    if file is None:
        raise MissingError(f"the best weights of {run!r} have no file {name!r}")
    return RedirectResponse(file.href, 307, {"Cache-Control": "no-cache"})


def _best(snapshot: Snapshot, run: str) -> Best:
    best = best_of(snapshot, require(snapshot, RunRecord, run, "run"))
    if best is None:
        raise MissingError(
            f"run {run!r} has no complete checkpoint yet; POST one to /v1/runs/{run}/checkpoints"
        )
    return best
