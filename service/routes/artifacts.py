"""Artifacts: merges that were promoted, and their files."""

from fastapi import APIRouter, Request, Response

from ckptmerge.domain.recipe import Recipe
from ckptmerge.errors import MissingError
from ckptmerge.storage.records import ArtifactRecord, CheckpointRecord, StudyRecord
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire.resource import FileName
from ckptmerge.workflow.stored import require
from service.dependencies import Service
from service.routes.checkpoints import file_response
from service.routes.runs import PROBLEM, Responses

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])

MISSING: Responses = {404: {**PROBLEM, "description": "There is no such artifact or file."}}


@router.head(
    "/{artifact}/files/{name}",
    operation_id="head_artifact_file",
    response_class=Response,
    responses=MISSING,
)
@router.get(
    "/{artifact}/files/{name}",
    operation_id="get_artifact_file",
    response_class=Response,
    responses=MISSING,
)
async def get_artifact_file(
    artifact: str, name: FileName, request: Request, service: Service
) -> Response:
    """Send one of a merge's files; its bytes never change."""
    record = await service.read(lambda snapshot: promoted(snapshot, artifact))
    return file_response(request, service, record.manifest.files, name)


@router.get("/{artifact}/recipe", operation_id="get_recipe", responses=MISSING)
async def get_recipe(artifact: str, service: Service) -> dict[str, object]:
    """Return what rebuilds the merge: parents' content digests, weights, arithmetic."""

    def look(snapshot: Snapshot) -> dict[str, object]:
        record = promoted(snapshot, artifact)
        study = require(snapshot, StudyRecord, record.study, "study")
        window = [require(snapshot, CheckpointRecord, c, "checkpoint") for c in study.checkpoints]
        parents = tuple(checkpoint.manifest.content for checkpoint in window)
        return Recipe(parents, record.weights, record.dtype).as_json()

    return await service.read(look)


def promoted(snapshot: Snapshot, key: str) -> ArtifactRecord:
    """Return a merge that was promoted; others are nobody's business.

    Raises:
        MissingError: there is none.
    """
    record = snapshot.get(ArtifactRecord, key)
    if record is None or not record.promoted:
        raise MissingError(f"there is no artifact {key!r}, or it was not promoted")
    return record
