"""Uploads in pieces: begun, asked about, appended to and given up.

The names are those of draft-ietf-httpbis-resumable-upload, interop version 8, without its interim
responses (104), which this server cannot send. Length and digest are announced at the beginning,
and a complete upload is a blob. An offset that was handed out is on disk, and is where the next
append may begin: whoever asks for it ends an append that is still going on.
"""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from starlette.exceptions import HTTPException

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.token import Scope
from ckptmerge.domain.upload import Upload
from ckptmerge.errors import (
    CkptmergeError,
    DigestMismatchError,
    InvalidInputError,
    MissingError,
    OutOfSpaceError,
    TooLargeError,
    UploadCompletedError,
    UploadLengthError,
    UploadOffsetError,
)
from ckptmerge.storage.records import UploadRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.workflow.begin_upload import Begun, begin_upload, still_to_come
from ckptmerge.workflow.blob_records import put_on_record
from service.dependencies import Limits, Service, State
from service.gate.auth import needs
from service.interface import Details, refusals
from service.problems import kind_of, problem_response
from service.routes.transfers import UPLOAD
from service.turns import Turn
from service.uploads import announced, append

router = APIRouter(prefix="/v1/uploads", tags=["blobs"])

PARTIAL = "application/partial-upload"

InPath = Annotated[
    str, Path(pattern="^u_[0-9a-f]{32}$", description="Id of the upload, from its Location.")
]
Complete = Annotated[
    str, Header(alias="Upload-Complete", pattern=r"^\?[01]$",
                description="?1 where the upload is complete with this request, ?0 otherwise."),
]  # fmt: skip
Nothing = Annotated[
    str, Header(alias="Upload-Complete", pattern=r"^\?0$",
                description="?0: an upload begins empty, and is appended to."),
]  # fmt: skip
Length = Annotated[
    str, Header(alias="Upload-Length", pattern="^[0-9]{1,15}$",
                description="Bytes that there will be in all."),
]  # fmt: skip
Offset = Annotated[
    str, Header(alias="Upload-Offset", pattern="^[0-9]{1,15}$",
                description="Bytes that there are; where the body goes on."),
]  # fmt: skip
ReprDigest = Annotated[
    str, Header(alias="Repr-Digest", pattern="^sha-256=:[A-Za-z0-9+/]{43}=:$",
                description="SHA-256 of all bytes (RFC 9530), such as sha-256=:…:"),
]  # fmt: skip
Key = Annotated[
    str | None, Header(min_length=1, max_length=255,
                       description="Sent again with the same digest it begins nothing new."),
]  # fmt: skip

_ID = "u_9f2c6a3e5d0b4c1f8a7e6d5c4b3a2f10"
_DIGEST = "sha256:b2116fb3584d45afa8323a8cd080c4118ac13713e6640b76d81e4a4428543d0e"
_NO_UPLOAD = f"there is no upload {_ID}, or not any more; begin another with POST /v1/uploads"
_NOT_EMPTY = "an upload begins empty; send no body, and append to its Location"
_BUSY = "256 uploads are under way; try again when one of them is done"

_APPEND: Details = {
    **UPLOAD,
    415: f"an append is of the type {PARTIAL}",
    MissingError: _NO_UPLOAD,
    UploadOffsetError: "the upload has 8,388,608 bytes, and 0 is not where it goes on; append from "
    "byte 8388608",
    UploadLengthError: "2 bytes from 8,388,608 on end beyond the 8,388,609 that were announced; "
    "append what is missing, or begin another upload",
    UploadCompletedError: f"the upload is complete; its bytes are blob {_DIGEST}",
    DigestMismatchError: f"the bytes are sha256:{'0' * 64}, announced was {_DIGEST}; they were "
    "damaged on the way, or changed while they were sent; upload them again",
}


def _says(**headers: str) -> dict[str, Any]:
    return {
        "headers": {
            name.replace("_", "-"): {"description": said, "schema": {"type": "string"}}
            for name, said in headers.items()
        }
    }


_PLACE = _says(
    Upload_Offset="Bytes that there are, on disk; where the next append begins.",
    Upload_Complete="?1 where the upload is complete.",
)


@router.post(
    "",
    status_code=201,
    operation_id="create_upload",
    dependencies=[needs(Scope.CHECKPOINT_WRITE, Scope.TRIAL)],
    response_class=Response,
    responses={
        201: {
            "description": "The upload has begun; append to its Location.",
            **_says(Location="Of the upload.", Upload_Limit="How large and how old it may get."),
        },
        200: {"description": "It has begun with an earlier request of this Idempotency-Key."},
        **refusals(
            {
                InvalidInputError: _NOT_EMPTY,
                TooLargeError: UPLOAD[TooLargeError],
                OutOfSpaceError: UPLOAD[OutOfSpaceError],
                429: _BUSY,
            }
        ),
    },
)
async def create_upload(
    *,
    request: Request,
    service: Service,
    limits: Limits,
    complete: Nothing,
    length: Length,
    repr_digest: ReprDigest,
    idempotency_key: Key = None,
) -> Response:
    """Begin an upload in pieces of bytes whose length and digest are known."""
    del complete  # it says ?0
    if _has_body(request):
        raise InvalidInputError(_NOT_EMPTY)
    told = {"Upload-Limit": f"max-size={limits.largest_blob}, max-age={int(limits.upload_age)}"}
    if int(length) > limits.largest_blob:
        raise HTTPException(
            413, f"{length} bytes are too many; at most {limits.largest_blob} are taken", told
        )
    record = UploadRecord(
        id=f"u_{secrets.token_hex(16)}",
        state="open",
        upload=Upload(_digest(repr_digest), int(length)),
        key=idempotency_key,
        created=service.now(),
    )
    # Who asks for it a second time may append to it at once, and then waits until it is there.
    async with service.turns.taken(record.id):
        begun = await _begun(service, record, at_most=limits.open_uploads)
    return Response(
        status_code=201 if begun.new else 200,
        headers={"Location": f"/v1/uploads/{begun.record.id}", **told},
    )


@router.head(
    "/{upload_id}",
    status_code=204,
    operation_id="head_upload",
    dependencies=[needs(Scope.CHECKPOINT_WRITE, Scope.TRIAL)],
    response_class=Response,
    responses={
        204: {"description": "How far the upload has come.", **_PLACE},
        **refusals({MissingError: _NO_UPLOAD}),
    },
)
async def head_upload(upload_id: InPath, service: Service, limits: Limits) -> Response:
    """Say how far an upload has come; an append that is going on ends with what it has brought."""
    async with service.turns.taken(upload_id, hurry=True):
        record = await service.read(lambda snapshot: _known(snapshot, upload_id, service))
    left = int(record.created + limits.upload_age - service.now())
    return Response(
        status_code=204,
        headers={
            **_place(record.upload),
            "Upload-Length": str(record.upload.length),
            "Upload-Limit": f"max-size={limits.largest_blob}, max-age={left}",
            "Cache-Control": "no-store",
        },
    )


@router.patch(
    "/{upload_id}",
    status_code=204,
    operation_id="append_upload",
    dependencies=[needs(Scope.CHECKPOINT_WRITE, Scope.TRIAL)],
    response_class=Response,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {PARTIAL: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    responses={
        201: {
            "description": "All bytes are there and right: they are a blob.",
            **_says(Location="Of the blob.", Upload_Complete="?1"),
        },
        204: {"description": "The bytes were appended.", **_PLACE},
        **refusals(_APPEND),
    },
)
async def append_upload(
    *,
    upload_id: InPath,
    request: Request,
    service: Service,
    limits: Limits,
    offset: Offset,
    complete: Complete,
) -> Response:
    """Append bytes to an upload; those that came are kept where the connection is cut."""
    size = announced(request, at_most=limits.largest_blob)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != PARTIAL:
        raise HTTPException(415, f"an append is of the type {PARTIAL}", {"Connection": "close"})
    async with service.turns.taken(upload_id) as turn:
        record = await service.read(lambda snapshot: _known(snapshot, upload_id, service))
        try:
            last = complete == "?1"
            record.upload.require_append(offset=int(offset), size=size, last=last)
        except (UploadOffsetError, UploadCompletedError) as error:
            return _misplaced(request, record.upload, error)
        upload, cut = await _appended(request, service, record, turn, last=last)
    if isinstance(cut, TimeoutError):
        return _misplaced(request, upload, _stopped(upload))
    if cut is not None:
        raise cut
    return Response(status_code=201 if upload.complete else 204, headers=_place(upload))


@router.delete(
    "/{upload_id}",
    status_code=204,
    operation_id="delete_upload",
    dependencies=[needs(Scope.CHECKPOINT_WRITE, Scope.TRIAL)],
    response_class=Response,
    responses={
        204: {"description": "The upload is given up, and what had come is removed."},
        **refusals({MissingError: _NO_UPLOAD}),
    },
)
async def delete_upload(upload_id: InPath, service: Service) -> Response:
    """Give an upload up; a blob that it has become stays."""
    async with service.turns.taken(upload_id, hurry=True):
        await service.read(lambda snapshot: _known(snapshot, upload_id, service))
        await _forget(service, upload_id)
    return Response(status_code=204)


async def _begun(service: State, record: UploadRecord, *, at_most: int) -> Begun:
    """Record an upload, and make its file where it is new and the disk has room for it."""

    def begin(unit: Unit) -> tuple[Begun | None, int]:
        return begin_upload(unit, record, at_most=at_most), still_to_come(unit)

    begun, room = await service.write(begin)
    if begun is None:
        said = f"{at_most} uploads are under way; try again when one of them is done"
        raise HTTPException(429, said, {"Retry-After": "20"})
    if begun.new:
        try:
            await service.off_loop(lambda: service.blobs.partials.create(record.id, room=room))
        except BaseException:
            await _forget(service, record.id)
            raise
    return begun


async def _appended(
    request: Request, service: State, record: UploadRecord, turn: Turn, *, last: bool
) -> tuple[Upload, Exception | None]:
    """Take the body, and record how far the upload has come with it, or that it has failed.

    Returns:
        The upload, and why no more came of the body where some of it is missing.
    """
    upload = record.upload
    opened = partial(
        service.blobs.partials.open,
        record.id, offset=upload.offset, size=upload.length, expected=upload.digest,
    )  # fmt: skip
    try:
        came = await append(
            request, opened, size=upload.length, last=last, turn=turn,
            deadlines=service.settings.limits,
        )  # fmt: skip
    except (DigestMismatchError, MissingError):
        # State that is lost, or can come to nothing: the upload must not be gone on with.
        await _forget(service, record.id)
        raise

    def advance(unit: Unit) -> Upload:
        known = _known(unit, record.id, service)
        further = known.upload.advanced(came.offset)
        if came.digest is not None:
            put_on_record(unit, service.blobs, came.digest, now=service.now())
            further = further.completed()
        return unit.update(replace(known, upload=further, state=further.state)).upload

    further = await service.write(advance)
    return further, None if further.complete else came.cut


def _stopped(upload: Upload) -> UploadOffsetError:
    return UploadOffsetError(
        "somebody asked how far the upload has come, which ended this append; go on from byte "
        f"{upload.offset}"
    )


def _misplaced(request: Request, upload: Upload, error: CkptmergeError) -> Response:
    """Refuse an append, and say where the upload goes on."""
    return problem_response(
        kind_of(error),
        str(error),
        request_id=request.state.request_id,
        headers={**_place(upload), "Connection": "close"},
    )


async def _forget(service: State, upload_id: str) -> None:
    """Remove an upload: first its record, then its bytes."""
    await service.write(lambda unit: unit.delete(UploadRecord, upload_id))
    await service.off_loop(lambda: service.blobs.partials.discard(upload_id))


def _known(snapshot: Snapshot, upload_id: str, service: State) -> UploadRecord:
    """Return an upload that is not too old.

    Raises:
        MissingError: there is none.
    """
    record = snapshot.get(UploadRecord, upload_id)
    if record is None or record.created + service.settings.limits.upload_age <= service.now():
        raise MissingError(
            f"there is no upload {upload_id}, or not any more; begin another with POST /v1/uploads"
        )
    return record


def _place(upload: Upload) -> Mapping[str, str]:
    """Say how far an upload has come, and where its blob is once it is complete."""
    place = {
        "Upload-Offset": str(upload.offset),
        "Upload-Complete": "?1" if upload.complete else "?0",
    }
    return {**place, "Location": f"/v1/blobs/{upload.digest}"} if upload.complete else place


def _has_body(request: Request) -> bool:
    headers = request.headers
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _digest(value: str) -> Digest:
    """Read a Repr-Digest that has the form it should have."""
    return Digest(base64.b64decode(value.partition(":")[2].rstrip(":")).hex())
