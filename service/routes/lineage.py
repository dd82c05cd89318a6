"""Lineage: what merges were made of, what showed them better, and what took whose place."""

from typing import Annotated

from fastapi import APIRouter, Path

from ckptmerge.domain.token import Scope
from ckptmerge.errors import MissingError
from ckptmerge.storage.records import RunRecord
from ckptmerge.wire.lineage import ArtifactResource, Lineage
from ckptmerge.workflow.lineage import artifact_resource, lineage_of_artifact, lineage_of_run
from ckptmerge.workflow.stored import require
from service.dependencies import Service
from service.gate.auth import needs
from service.interface import refusals
from service.routes.artifacts import promoted
from service.routes.runs import MISSING, InPath

router = APIRouter(prefix="/v1")

ArtifactInPath = Annotated[str, Path(examples=["a_01JZ"])]

_NO_ARTIFACT = refusals({MissingError: "there is no artifact 'a_01JZ', or it was not promoted"})


@router.head(
    "/artifacts/{artifact}",
    tags=["artifacts"],
    operation_id="head_artifact",
    dependencies=[needs(Scope.READ)],
    responses=_NO_ARTIFACT,
)
@router.get(
    "/artifacts/{artifact}",
    tags=["artifacts"],
    operation_id="get_artifact",
    dependencies=[needs(Scope.READ)],
    responses=_NO_ARTIFACT,
)
async def get_artifact(artifact: ArtifactInPath, service: Service) -> ArtifactResource:
    """Describe a merge: its weights, its recipe, its files, and which study promoted it."""
    return await service.read(
        lambda snapshot: artifact_resource(snapshot, promoted(snapshot, artifact))
    )


@router.head(
    "/artifacts/{artifact}/lineage",
    tags=["artifacts"],
    operation_id="head_artifact_lineage",
    dependencies=[needs(Scope.READ)],
    responses=_NO_ARTIFACT,
)
@router.get(
    "/artifacts/{artifact}/lineage",
    tags=["artifacts"],
    operation_id="get_artifact_lineage",
    dependencies=[needs(Scope.READ)],
    responses=_NO_ARTIFACT,
)
async def get_artifact_lineage(artifact: ArtifactInPath, service: Service) -> Lineage:
    """Show a merge's parents, the tests behind it, and what it took the place of."""
    return await service.read(
        lambda snapshot: lineage_of_artifact(snapshot, promoted(snapshot, artifact))
    )


@router.head(
    "/runs/{run}/lineage",
    tags=["runs"],
    operation_id="head_run_lineage",
    dependencies=[needs(Scope.READ)],
    responses=MISSING,
)
@router.get(
    "/runs/{run}/lineage",
    tags=["runs"],
    operation_id="get_run_lineage",
    dependencies=[needs(Scope.READ)],
    responses=MISSING,
)
async def get_run_lineage(run: InPath, service: Service) -> Lineage:
    """Show everything that was ever best of a run, what it was made of, and what followed it."""
    return await service.read(
        lambda snapshot: lineage_of_run(snapshot, require(snapshot, RunRecord, run, "run"))
    )
