"""Studies: what is searched, how far it has come, and what came of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from ckptmerge.domain.token import Scope
from ckptmerge.errors import (
    IllegalTransitionError,
    IncompatibleCheckpointsError,
    InvalidInputError,
    MissingError,
    RefusedError,
)
from ckptmerge.storage.records import StudyRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.resource import RunName
from ckptmerge.wire.studies import (
    NewStudy,
    StudyChange,
    StudyPage,
    StudyResource,
    StudyTests,
    TrialPage,
)
from ckptmerge.workflow.answers import study_resource, study_tests, trial_resources
from ckptmerge.workflow.audit_log import record_act
from ckptmerge.workflow.cancel import cancel_study
from ckptmerge.workflow.open_by_hand import open_by_hand
from ckptmerge.workflow.stored import load_study, require
from service.dependencies import By, Service
from service.gate.auth import needs
from service.interface import Details, refusals

router = APIRouter(prefix="/v1/studies", tags=["studies"])

_MISSING: Details = {
    MissingError: "there is no study 's_01JZ'; check the name, and whether this is the service "
    "you mean"
}

_UNDECIDED: Details = {
    MissingError: "study s_01JZ is searching: nothing has been tested yet; ask again once it is "
    "decided"
}


@router.get("", operation_id="list_studies", dependencies=[needs(Scope.READ)])
async def list_studies(
    service: Service,
    run: RunName | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> StudyPage:
    """List studies, newest first."""

    def look(snapshot: Snapshot) -> StudyPage:
        equal: dict[str, Any] = {} if run is None else {"run": run}
        found = snapshot.find(StudyRecord, after=after, limit=limit + 1, newest_first=True, **equal)
        items = [study_resource(snapshot, record) for record in found[:limit]]
        return StudyPage(items=items, next=items[-1].id if len(found) > limit else None)

    return await service.read(look)


@router.post(
    "",
    status_code=201,
    operation_id="open_study",
    dependencies=[needs(Scope.ADMIN)],
    responses={
        200: {"model": StudyResource, "description": "The same request opened this study before."},
        **refusals(
            {
                MissingError: "run 'olmo-1b' has no checkpoint at step 1575",
                RefusedError: "study s_01JZ of run 'olmo-1b' is searching, and a run has one at a "
                'time; wait for it, or end it with PATCH /v1/studies/s_01JZ {"state": "cancelled"}',
                IncompatibleCheckpointsError: "c_01JZ and c_01K0 are not of one model; 1 tensors "
                "differ: …",
                InvalidInputError: "a merge needs at least two checkpoints, not 1",
            }
        ),
    },
)
async def create_study(
    wanted: NewStudy,
    service: Service,
    by: By,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="Sent again with the same body it opens nothing new.",
        ),
    ] = None,
) -> StudyResource:
    """Open a study by hand over chosen checkpoints of a run, one at a time."""

    def change(unit: Unit) -> tuple[StudyResource, bool]:
        opened = open_by_hand(
            unit, wanted, key=idempotency_key, now=service.now(), new_id=service.new_id
        )
        if opened.new:
            what = {"run": wanted.run, "checkpoints": list(opened.record.checkpoints)}
            place = f"studies/{opened.record.id}"
            record_act(unit, by, "open-study", place, now=service.now(), **what)
        return study_resource(unit, opened.record), opened.new

    resource, new = await service.write(change)
    service.wake()
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/studies/{resource.id}"
    return resource


@router.get(
    "/{study}",
    operation_id="get_study",
    dependencies=[needs(Scope.READ)],
    responses=refusals(_MISSING),
)
async def get_study(study: str, service: Service) -> StudyResource:
    """Describe a study."""
    return await service.read(
        lambda snapshot: study_resource(snapshot, require(snapshot, StudyRecord, study, "study"))
    )


@router.get(
    "/{study}/trials",
    operation_id="list_trials",
    dependencies=[needs(Scope.READ)],
    responses=refusals(_MISSING),
)
async def list_trials(study: str, service: Service) -> TrialPage:
    """List a study's trials in the order in which they were proposed."""
    items = await service.read(lambda snapshot: trial_resources(load_study(snapshot, study)))
    return TrialPage(items=items, next=None)


@router.head(
    "/{study}/certificate",
    operation_id="head_certificate",
    dependencies=[needs(Scope.READ)],
    responses=refusals(_UNDECIDED),
)
@router.get(
    "/{study}/certificate",
    operation_id="get_certificate",
    dependencies=[needs(Scope.READ)],
    responses=refusals(_UNDECIDED),
)
async def get_certificate(study: str, service: Service) -> StudyTests:
    """Show every test behind a study's verdict, also where nothing was promoted."""
    return await service.read(
        lambda snapshot: study_tests(require(snapshot, StudyRecord, study, "study"))
    )


@router.patch(
    "/{study}",
    operation_id="change_study",
    dependencies=[needs(Scope.ADMIN)],
    responses=refusals(
        {
            **_MISSING,
            IllegalTransitionError: "study s_01JZ is decided, nothing is left to end",
        }
    ),
)
async def change_study(study: str, change: StudyChange, service: Service, by: By) -> StudyResource:
    """Cancel a study: its tasks end, and the best stays as it is."""

    def cancel(unit: Unit) -> StudyResource:
        ended = cancel_study(
            unit, require(unit, StudyRecord, study, "study"), reason=f"{change.state} by hand",
            now=service.now(), new_id=service.new_id,
        )  # fmt: skip
        record_act(unit, by, "cancel-study", f"studies/{study}", now=service.now(), run=ended.run)
        return study_resource(unit, ended)

    ended = await service.write(cancel)
    service.wake()
    return ended
