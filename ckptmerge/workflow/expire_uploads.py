"""Expire uploads that nobody came to complete, and forget the completed ones in time."""

from ckptmerge.storage.partial import PartialStore
from ckptmerge.storage.records import UploadRecord
from ckptmerge.storage.store import Store


def expire_uploads(store: Store, partials: PartialStore, *, now: float, age: float) -> int:
    """Remove uploads that were begun too long ago, and bytes that belong to none.

    The record goes first and the bytes after it: a kill in between leaves bytes without a record,
    which the next call removes. A record is made before its bytes, so none are taken by mistake.

    Args:
        store: Where records are.
        partials: Where the bytes are.
        now: Seconds since 1970.
        age: Seconds that an upload may take.

    Returns:
        How many uploads were given up incomplete.
    """
    lying = list(partials)
    with store.write() as unit:
        known = unit.find(UploadRecord)
        old = [record for record in known if record.created + age <= now]
        for record in old:
            unit.delete(UploadRecord, record.id)
    going = {record.id for record in known if not record.upload.complete} - {
        record.id for record in old
    }
    for name in lying:
        if name not in going:
            partials.discard(name)
    return sum(not record.upload.complete for record in old)
