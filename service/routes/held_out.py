"""Held-out sets: the documents that runs are judged on."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.observation import Split
from ckptmerge.domain.token import Scope
from ckptmerge.errors import HeldOutSetError, MissingError, NameTakenError
from ckptmerge.evaluation.documents import HeldOutSet, load_held_out
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import HeldOutRecord
from ckptmerge.storage.store import Unit
from ckptmerge.wire.resource import RunName
from ckptmerge.wire.runs import HeldOutSetResource
from ckptmerge.workflow.audit_log import record_act
from ckptmerge.workflow.blob_files import laid_out
from ckptmerge.workflow.blob_records import put_files_on_record, put_on_record
from ckptmerge.workflow.stored import require
from service.dependencies import By, Limits, Service
from service.gate.auth import needs
from service.interface import refusals
from service.routes.transfers import UPLOAD
from service.uploads import announced, receive

router = APIRouter(prefix="/v1/held-out-sets", tags=["held-out sets"])

InPath = Annotated[RunName, Path(examples=["default"])]

FILE = "held-out.jsonl"

_DOCUMENTS = (
    "It rained all night.",
    "The ferry leaves at nine.",
    "Bread rises slowly in the cold.",
    "She sold the house in May.",
    "The museum closes on Mondays.",
    "Snow covered the tracks.",
)
"""About as few as every split gets two of; better hundreds."""


@router.put(
    "/{name}",
    status_code=201,
    operation_id="put_held_out_set",
    dependencies=[needs(Scope.CHECKPOINT_WRITE)],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/x-ndjson": {
                    "schema": {"type": "string"},
                    "example": "".join(
                        f'{{"text": "{text}", "domain": "web"}}\n' for text in _DOCUMENTS
                    ),
                }
            },
        }
    },
    responses={
        200: {"model": HeldOutSetResource, "description": "The same documents are there."},
        **refusals(
            {
                **UPLOAD,
                NameTakenError: "'web-and-code' is another held-out set; upload this one under a "
                "name of its own and let the run change to it, which begins a new era",
                HeldOutSetError: "held-out.jsonl, line 7: a document needs 'text' or 'ids', this "
                "one has neither",
            }
        ),
    },
)
async def put_held_out_set(
    name: InPath,
    request: Request,
    service: Service,
    limits: Limits,
    response: Response,
    *,
    by: By,
) -> HeldOutSetResource:
    """Upload documents, one JSON object a line; a name keeps its documents for ever."""
    size = announced(request, at_most=limits.largest_held_out)
    digest = await receive(request, service.blobs, size=size, expected=None, deadlines=limits)
    file = FileEntry(FILE, size, digest)
    await service.write(lambda unit: put_on_record(unit, service.blobs, digest, now=service.now()))
    documents = await service.off_loop(lambda: load_set(service.blobs, file))
    resource = _resource(name, file, documents)  # a set that no split can be made of is refused

    now = service.now()

    def change(unit: Unit) -> bool:
        known = unit.get(HeldOutRecord, name)
        if known is not None and known.digest != documents.digest:
            raise NameTakenError(
                f"{name!r} is another held-out set; upload this one under a name of its own and "
                "let the run change to it, which begins a new era"
            )
        if known is None:
            put_files_on_record(unit, service.blobs, [file], now=service.now())
            unit.insert(HeldOutRecord(name=name, digest=documents.digest, file=file, created=now))
            what = {"digest": str(documents.digest)}
            record_act(unit, by, "put-held-out-set", f"held-out-sets/{name}", now=now, **what)
        return known is None

    response.status_code = 201 if await service.write(change) else 200
    return resource


@router.get(
    "/{name}",
    operation_id="get_held_out_set",
    dependencies=[needs(Scope.READ)],
    responses=refusals(
        {
            MissingError: "there is no held-out set 'web-and-code'; check the name, and whether "
            "this is the service you mean"
        }
    ),
)
async def get_held_out_set(name: InPath, service: Service) -> HeldOutSetResource:
    """Describe a held-out set: how many documents of each domain lie in each split."""
    record = await service.read(
        lambda snapshot: require(snapshot, HeldOutRecord, name, "held-out set")
    )
    documents = await service.off_loop(lambda: load_set(service.blobs, record.file))
    return _resource(name, record.file, documents)


def load_set(blobs: BlobStore, file: FileEntry) -> HeldOutSet:
    """Read the documents of a blob.

    Raises:
        HeldOutSetError: they cannot judge a model.
    """
    with laid_out(blobs, [file]) as folder:
        return load_held_out(folder / file.name)


def _resource(name: str, file: FileEntry, documents: HeldOutSet) -> HeldOutSetResource:
    return HeldOutSetResource(
        name=name,
        digest=str(documents.digest),
        file=str(file.digest),
        documents=len(documents),
        splits={
            str(split): _counts(documents.split(split))
            for split in (Split.SEARCH, Split.CERTIFY, Split.AUDIT)
        },
    )


def _counts(documents: HeldOutSet) -> dict[str, dict[str, int]]:
    held = Counter(document.domain for document in documents)
    units = Counter(domain for domain, _ in {(d.domain, d.unit) for d in documents})
    return {d: {"documents": held[d], "units": units[d]} for d in sorted(held)}
