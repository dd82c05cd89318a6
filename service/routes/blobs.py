"""Blobs: bytes by their digest."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.token import Scope
from ckptmerge.errors import DigestMismatchError
from ckptmerge.storage.store import Unit
from ckptmerge.workflow.begin_upload import still_to_come
from ckptmerge.workflow.blob_records import put_on_record
from service.dependencies import Limits, Service
from service.downloads import blob_response
from service.gate.auth import needs
from service.interface import refusals
from service.routes.transfers import BYTES, CONDITIONS, RANGES, UPLOAD, described, sent
from service.uploads import announced, receive

router = APIRouter(prefix="/v1/blobs", tags=["blobs"])

InPath = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 in lower-case hexadecimal.")
]

_DIGEST = "sha256:b2116fb3584d45afa8323a8cd080c4118ac13713e6640b76d81e4a4428543d0e"

_OTHER_DIGEST = (
    f"the bytes are sha256:{'0' * 64}, announced was {_DIGEST}; they were damaged on the way, or "
    "named wrongly"
)

_NO_BLOB = f"there is no blob {_DIGEST}"


@router.put(
    "/sha256:{hexadecimal}",
    status_code=201,
    operation_id="put_blob",
    dependencies=[needs(Scope.CHECKPOINT_WRITE, Scope.TRIAL)],
    response_class=Response,
    openapi_extra={"requestBody": {"required": True, **BYTES}},
    responses={
        200: {"description": "The blob was there already; the body was not read."},
        **refusals({**UPLOAD, DigestMismatchError: _OTHER_DIGEST}),
    },
)
async def put_blob(
    hexadecimal: InPath, request: Request, service: Service, limits: Limits
) -> Response:
    """Store bytes under their digest; what was answered with 201 survives the loss of power."""
    digest = Digest(hexadecimal)

    def record(unit: Unit) -> bool:
        if not service.blobs.is_own(digest):
            return False
        put_on_record(unit, service.blobs, digest, now=service.now())
        return True

    # Looked at again in the unit: what nothing names can be collected between the two.
    # A file that was registered in place is not kept: whoever sends its bytes wants them to be.
    known = service.blobs.is_own(digest) and await service.write(record)
    if not known:
        size = announced(request, at_most=limits.largest_blob)
        beside = await service.read(still_to_come)
        await receive(
            request, service.blobs, size=size, expected=digest, deadlines=limits, beside=beside
        )
        await service.write(record)
    location = {"Location": f"/v1/blobs/{digest}"}
    return Response(status_code=200 if known else 201, headers=location)


@router.get(
    "/sha256:{hexadecimal}",
    operation_id="get_blob",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses=sent(_NO_BLOB),
    openapi_extra=RANGES,
)
async def get_blob(hexadecimal: InPath, request: Request, service: Service) -> Response:
    """Send a blob, or the part of it that is asked for."""
    digest = Digest(hexadecimal)
    return blob_response(
        request,
        partial(service.blobs.open, digest),
        digest=digest,
        filename=digest.hex,
    )


@router.head(
    "/sha256:{hexadecimal}",
    operation_id="head_blob",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses=described(_NO_BLOB),
    openapi_extra=CONDITIONS,
)
async def head_blob(hexadecimal: InPath, request: Request, service: Service) -> Response:
    """Describe a blob without sending it."""
    return await get_blob(hexadecimal, request, service)
