"""Blobs: bytes by their digest."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import MissingError
from ckptmerge.storage.records import BlobRecord
from ckptmerge.storage.store import Unit
from service.dependencies import Limits, Service
from service.downloads import blob_response
from service.routes.runs import PROBLEM
from service.uploads import announced, receive

router = APIRouter(prefix="/v1/blobs", tags=["blobs"])

InPath = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 in lower-case hexadecimal.")
]


@router.put(
    "/sha256:{hexadecimal}",
    status_code=201,
    operation_id="put_blob",
    response_class=Response,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
    responses={
        200: {"description": "The blob was there already; the body was not read."},
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
    location = {"Location": f"/v1/blobs/{digest}"}
    if service.blobs.size(digest) is not None:
        return Response(status_code=200, headers=location)
    size = announced(request, at_most=limits.largest_blob)
    await receive(request, service.blobs, size=size, expected=digest)

    def record(unit: Unit) -> None:
        if unit.get(BlobRecord, digest.hex) is None:
            unit.insert(BlobRecord(hex=digest.hex, size=size, created=service.now()))

    await service.write(record)
    return Response(status_code=201, headers=location)


@router.api_route(
    "/sha256:{hexadecimal}",
    methods=["GET", "HEAD"],
    operation_id="get_blob",
    response_class=Response,
    responses={404: {**PROBLEM, "description": "There is no such blob."}},
)
async def get_blob(hexadecimal: InPath, request: Request, service: Service) -> Response:
    """Send a blob, or the part of it that is asked for."""
    digest = Digest(hexadecimal)
    if service.blobs.size(digest) is None:
        raise MissingError(f"there is no blob {digest}")
    return blob_response(
        request,
        partial(service.blobs.open, digest),
        digest=digest,
        filename=digest.hex,
    )
