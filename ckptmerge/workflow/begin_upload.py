"""An upload in pieces begins, once for each request, and is promised room on the disk."""

from dataclasses import dataclass

from ckptmerge.errors import InvalidInputError
from ckptmerge.storage.records import UploadRecord
from ckptmerge.storage.store import Snapshot, Unit


@dataclass(frozen=True)
class Begun:
    """What came of it."""

    record: UploadRecord
    new: bool
    """Whether it began now, and not with an earlier request whose answer was lost."""


def begin_upload(unit: Unit, wanted: UploadRecord, *, at_most: int) -> Begun | None:
    """Begin an upload; the same under the same key is the one that has begun already.

    A key counts while its upload is under way: whoever did not hear of it has not completed it.

    Args:
        unit: Where uploads are recorded.
        wanted: The upload, and the request's Idempotency-Key
            (draft-ietf-httpapi-idempotency-key-header).
        at_most: How many may be under way at once.

    Returns:
        None where so many are under way.

    Raises:
        InvalidInputError: the key came with another upload before.
    """
    going = unit.find(UploadRecord, state="open")
    for known in going:
        if wanted.key is not None and known.key == wanted.key:
            _require_same(known, wanted)
            return Begun(known, new=False)
    if len(going) >= at_most:
        return None
    unit.insert(wanted)
    return Begun(wanted, new=True)


def still_to_come(snapshot: Snapshot) -> int:
    """Return how many bytes the uploads under way have been promised room for, and not brought."""
    return sum(record.upload.missing for record in snapshot.find(UploadRecord, state="open"))


def _require_same(known: UploadRecord, wanted: UploadRecord) -> None:
    # Its offset may be further: the answer was lost, and not necessarily what followed it.
    if (known.upload.digest, known.upload.length) != (wanted.upload.digest, wanted.upload.length):
        raise InvalidInputError(
            f"the Idempotency-Key {wanted.key!r} came with another upload before, of "
            f"{known.upload.length:,} bytes; send a new key with a new upload"
        )
