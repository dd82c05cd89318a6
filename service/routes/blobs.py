"""Blobs: bytes by their digest."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.records import BlobRecord
from ckptmerge.storage.store import Unit
from service.dependencies import Limits, Service
from service.downloads import blob_response
from service.routes.runs import PROBLEM, Responses
from service.uploads import announced, receive

router = APIRouter(prefix="/v1/blobs", tags=["blobs"])

InPath = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 in lower-case hexadecimal.")
]

_BODY = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
}

_NOT_MODIFIED: Responses = {304: {"description": "The client has these bytes already."}}
_REFUSED: Responses = {
    404: {**PROBLEM, "description": "There is no such blob."},
    412: {**PROBLEM, "description": "If-Match names other bytes."},
}


@router.put(
    "/sha256:{hexadecimal}",
    status_code=201,
    operation_id="put_blob",
    response_class=Response,
    openapi_extra={"requestBody": {"required": True, **_BODY}},
    responses={
        200: {"description": "The blob was there already; the body was not read."},
        408: {**PROBLEM, "description": "The client fell silent in the middle of the body."},
        411: {**PROBLEM, "description": "The body must announce its length."},
        413: {**PROBLEM, "description": "The body is too large."},
        422: {**PROBLEM, "description": "The bytes are not those of the digest."},
        507: {**PROBLEM, "description": "The disk is full."},
    },
)
async def put_blob(
    hexadecimal: InPath, request: Request, service: Service, limits: Limits
) -> Response:
    """Store bytes under their digest; what was answered with 201 survives the loss of power."""
    digest = Digest(hexadecimal)
    size = service.blobs.size(digest)
    status = 200 if size is not None else 201
    if size is None:
        size = announced(request, at_most=limits.largest_blob)
        await receive(request, service.blobs, size=size, expected=digest)

    def record(unit: Unit) -> None:
        # A blob that was there may have no row yet: a kill can come between the two.
        if unit.get(BlobRecord, digest.hex) is None:
            unit.insert(BlobRecord(hex=digest.hex, size=size, created=service.now()))

    await service.write(record)
    return Response(status_code=status, headers={"Location": f"/v1/blobs/{digest}"})


@router.get(
    "/sha256:{hexadecimal}",
    operation_id="get_blob",
    response_class=Response,
    responses={
        200: {"description": "The whole blob.", **_BODY},
        206: {"description": "The range that was asked for.", **_BODY},
        **_NOT_MODIFIED,
        **_REFUSED,
        416: {**PROBLEM, "description": "The range lies outside the blob."},
    },
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
    response_class=Response,
    responses={
        200: {"description": "The blob is there; the headers are those of GET."},
        **_NOT_MODIFIED,
        **_REFUSED,
    },
)
async def head_blob(hexadecimal: InPath, request: Request, service: Service) -> Response:
    """Describe a blob without sending it."""
    return await get_blob(hexadecimal, request, service)
