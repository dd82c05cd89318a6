"""Studies: what is searched, how far it has come, and what came of it."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query

from ckptmerge.domain.study import StudyState
from ckptmerge.errors import IllegalTransitionError
from ckptmerge.storage.records import EventRecord, StudyRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.resource import RunName
from ckptmerge.wire.studies import StudyChange, StudyPage, StudyResource, TrialPage
from ckptmerge.workflow.answers import study_resource, trial_resources
from ckptmerge.workflow.stored import load_study, require
from ckptmerge.workflow.tasks import cancel_tasks
from service.dependencies import Service
from service.routes.runs import PROBLEM, Responses

router = APIRouter(prefix="/v1/studies", tags=["studies"])

MISSING: Responses = {404: {**PROBLEM, "description": "There is no such study."}}


@router.get("", operation_id="list_studies")
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


@router.get("/{study}", operation_id="get_study", responses=MISSING)
async def get_study(study: str, service: Service) -> StudyResource:
    """Describe a study."""
    return await service.read(
        lambda snapshot: study_resource(snapshot, require(snapshot, StudyRecord, study, "study"))
    )


@router.get("/{study}/trials", operation_id="list_trials", responses=MISSING)
async def list_trials(study: str, service: Service) -> TrialPage:
    """List a study's trials in the order in which they were proposed."""
    items = await service.read(lambda snapshot: trial_resources(load_study(snapshot, study)))
    return TrialPage(items=items, next=None)


@router.patch(
    "/{study}",
    operation_id="change_study",
    responses={**MISSING, 409: {**PROBLEM, "description": "The study is over."}},
)
async def change_study(study: str, change: StudyChange, service: Service) -> StudyResource:
    """Cancel a study: its tasks end, and the best stays as it is."""

    def cancel(unit: Unit) -> StudyResource:
        record = require(unit, StudyRecord, study, "study")
        if record.state not in {StudyState.SEARCHING, StudyState.FROZEN}:
            raise IllegalTransitionError(f"study {study} is {record.state}, nothing is left to end")
        ended = unit.update(
            replace(record, state=StudyState(change.state), stopped="cancelled by hand")
        )
        cancel_tasks(unit, study)
        unit.insert(
            EventRecord(
                id=service.new_id("v"), run=record.run, kind="study-cancelled",
                data={"study": study}, created=service.now(),
            )
        )  # fmt: skip
        return study_resource(unit, ended)

    return await service.write(cancel)
