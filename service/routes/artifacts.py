"""Artifacts: merges that were promoted, and their files."""

from fastapi import APIRouter, Request, Response

from ckptmerge.domain.token import Scope
from ckptmerge.errors import MissingError
from ckptmerge.storage.records import ArtifactRecord
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire import examples
from ckptmerge.wire.resource import FileName
from ckptmerge.workflow.answers import timestamp
from ckptmerge.workflow.lineage import recipe_of
from service.dependencies import Service
from service.gate.auth import needs
from service.interface import refusals
from service.routes.checkpoints import file_response
from service.routes.transfers import CONDITIONS, RANGES, described, sent

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])

_NO_ARTIFACT = "there is no artifact 'a_01JZ', or it was not promoted"


@router.head(
    "/{artifact}/files/{name}",
    operation_id="head_artifact_file",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses=described(_NO_ARTIFACT),
    openapi_extra=CONDITIONS,
)
@router.get(
    "/{artifact}/files/{name}",
    operation_id="get_artifact_file",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses=sent(_NO_ARTIFACT),
    openapi_extra=RANGES,
)
async def get_artifact_file(
    artifact: str, name: FileName, request: Request, service: Service
) -> Response:
    """Send one of a merge's files; its bytes never change."""
    record = await service.read(lambda snapshot: promoted(snapshot, artifact))
    if record.removed is not None:
        raise MissingError(
            f"the bytes of merge {record.id} were removed on {timestamp(record.removed)}; "
            f"GET /v1/artifacts/{record.id}/recipe says how to rebuild them"
        )
    return file_response(request, service, record.manifest.files, name)


@router.get(
    "/{artifact}/recipe",
    operation_id="get_recipe",
    dependencies=[needs(Scope.READ)],
    responses={
        200: {"content": {"application/json": {"example": examples.RECIPE}}},
        **refusals({MissingError: _NO_ARTIFACT}),
    },
)
async def get_recipe(artifact: str, service: Service) -> dict[str, object]:
    """Return what rebuilds the merge: parents' content digests, weights, arithmetic."""

    def look(snapshot: Snapshot) -> dict[str, object]:
        return recipe_of(snapshot, promoted(snapshot, artifact)).as_json()

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
