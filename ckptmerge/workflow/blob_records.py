"""Blobs on record: what has a row may be collected, and what is named is looked at again first.

A collector reads the records, and a moment later deletes what none of them named. Whoever names a
blob in between goes through here, within the unit that makes the record: the row's version goes
up, the collector sees it, and leaves the blob alone; or the collector came first, and the bytes
are said to be missing before anything relies on them.
"""

from collections.abc import Sequence
from dataclasses import replace

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import MissingError
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import BlobRecord
from ckptmerge.storage.store import Unit

LOST = "lost: "
"""How a checkpoint's ``missing`` names a file that was there once, and is not any more."""


def put_on_record(
    unit: Unit, blobs: BlobStore, digest: Digest, *, now: float, lasting: bool = False
) -> BlobRecord:
    """Record that a blob has arrived, or that a record is made which names it.

    Args:
        unit: The one that also makes that record.
        blobs: Where the bytes are.
        digest: Of the blob.
        now: Seconds since 1970; the time of grace begins anew.
        lasting: Whether the blob stays although no checkpoint or merge will name it.

    Raises:
        MissingError: the bytes are not there, or not there any more.
    """
    size = blobs.size(digest)
    if size is None:
        raise MissingError(
            f"blob {digest} is not there; PUT it to /v1/blobs/{digest} first, also where it was "
            "there before: what nothing names is removed in time"
        )
    known = unit.get(BlobRecord, digest.hex)
    if known is None:
        return unit.insert(BlobRecord(hex=digest.hex, size=size, created=now, lasting=lasting))
    return unit.update(
        replace(
            known, created=now, version=known.version + 1, lasting=known.lasting or lasting,
        )
    )  # fmt: skip


def put_files_on_record(
    unit: Unit, blobs: BlobStore, files: Sequence[FileEntry], *, now: float
) -> None:
    """Record that a record is made which names these files.

    Raises:
        MissingError: a file's bytes are not there, or are of another size.
    """
    for file in files:
        size = blobs.size(file.digest)
        if size is None:
            raise MissingError(
                f"blob {file.digest} ({file.name}) was not uploaded; "
                f"PUT it to /v1/blobs/{file.digest} first"
            )
        if size != file.size:
            raise MissingError(
                f"{file.name} is said to have {file.size} bytes, its blob has {size}"
            )
        put_on_record(unit, blobs, file.digest, now=now)
