"""The page at ``/``: runs, what is best of each, and how the study that runs now is doing."""

from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ckptmerge.domain.token import Scope
from ckptmerge.storage.records import RunRecord, StudyRecord
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire.best import Best
from ckptmerge.wire.runs import RunResource
from ckptmerge.wire.studies import StudyResource, TrialResource
from ckptmerge.workflow.answers import run_resource, study_resource, trial_resources
from ckptmerge.workflow.best import best_of
from ckptmerge.workflow.stored import load_study
from service.dependencies import Service
from service.gate.auth import needs

SHOWN = 50
"""Runs on one page; the newest."""

router = APIRouter(include_in_schema=False)

# Names and reasons are other people's text: everything is escaped.
_pages = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
)


@dataclass(frozen=True)
class Shown:
    """One run on the page."""

    run: RunResource
    best: Best | None
    study: StudyResource | None
    """The newest."""
    trials: list[TrialResource]


@router.get("/", dependencies=[needs(Scope.READ)])
async def page(service: Service) -> HTMLResponse:
    """Show the newest runs."""
    shown = await service.read(_look)
    text = _pages.get_template("page.html").render(
        shown=shown, workers=service.live_workers(), interval=_interval
    )
    return HTMLResponse(text)


def _look(snapshot: Snapshot) -> list[Shown]:
    found = snapshot.find(RunRecord, newest_first=True, limit=SHOWN)
    return [_shown(snapshot, record) for record in found]


def _shown(snapshot: Snapshot, record: RunRecord) -> Shown:
    studies = snapshot.find(StudyRecord, run=record.name, newest_first=True, limit=1)
    newest = studies[0] if studies else None
    return Shown(
        run=run_resource(snapshot, record),
        best=best_of(snapshot, record),
        study=None if newest is None else study_resource(snapshot, newest),
        trials=[] if newest is None else trial_resources(load_study(snapshot, newest.id)),
    )


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "not bounded"
    return f"{low:+.4f} to {high:+.4f}"
