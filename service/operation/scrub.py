"""Reading every stored byte again: disks lose some silently, and a backup is no use by then.

Reading works beside a running service. What is found damaged can be moved aside while no service
runs; its next start then finds the bytes gone, says which checkpoints have lost them, and takes
them again from whoever has them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.storage.records import ArtifactRecord, CheckpointRecord, HeldOutRecord, RunRecord
from ckptmerge.storage.store import Snapshot
from ckptmerge.workflow.audit_log import broken_at
from ckptmerge.workflow.stored import every
from service.data_folder import DataFolder
from service.operation.stored import (
    Inventory,
    blobs_beneath,
    blobs_of,
    bytes_of,
    hash_of,
    inventory,
    kept_at,
    place_of,
    records_now,
    require_data_folder,
    sync,
)

QUARANTINE = "quarantine"
"""Folder of the data folder that damaged blobs are moved to."""


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A blob that is not what it was when it was acknowledged."""

    digest: str
    what: str
    """``damaged`` or ``missing``."""
    needed_by: tuple[str, ...]
    """Checkpoints, merges, runs and held-out sets that name it."""
    moved_to: str | None = None
    """Where its bytes lie now, if they were moved aside."""


@dataclass(frozen=True, kw_only=True)
class Scrubbed:
    """What was read, and what was found."""

    blobs: int
    """Read whole."""
    bytes: int
    wrong: tuple[Wrong, ...]
    unreferenced: int
    """Blobs that nothing names: uploads of the last day, usually; the service removes them."""
    unreferenced_bytes: int
    audit_broken_at: int | None
    """Number of the first entry of the audit log that is not as it was written."""

    @property
    def clean(self) -> bool:
        """Whether nothing was found to be wrong."""
        return not self.wrong and self.audit_broken_at is None


def scrub(data: Path, *, repair: bool = False, database: str | None = None) -> Scrubbed:
    """Read every blob that is on record, and compare it with its digest; so the audit log's chain.

    Args:
        data: The folder of a service, running or not.
        repair: Whether to move damaged blobs aside, into ``quarantine``; nothing is deleted.
        database: The PostgreSQL database of its records; None where they are in the folder.

    Raises:
        MissingError: ``data`` is not a service's data folder.
        RefusedError: its records are in another database than this one.
        ConfigurationError: it is to be repaired, and a service runs on it.
    """
    if database is None:
        require_data_folder(data)
    if not repair:
        return _read_all(data, database)
    with DataFolder(data):
        found = _read_all(data, database)
        return _with_damaged_aside(data, found)


def _read_all(data: Path, database: str | None) -> Scrubbed:
    # Looked at before the records: bytes come first and rows second.
    there = set(blobs_beneath(blobs_of(data)))
    with records_now(data, database) as snapshot:
        listed = inventory(snapshot)
        broken = broken_at(snapshot)
    blobs = {**listed.needed, **listed.loose}
    found = {name: _what_is_wrong(data, name) for name in sorted(blobs)}
    wrong = {name: what for name, what in found.items() if what is not None}
    unreferenced = [name for name in there if name not in listed.needed]
    return Scrubbed(
        blobs=sum(what != "missing" for what in found.values()),
        bytes=sum(size for name, size in blobs.items() if found[name] != "missing"),
        wrong=_still_wrong(data, database, wrong) if wrong else (),
        unreferenced=len(unreferenced),
        unreferenced_bytes=sum(_size(data, name) for name in unreferenced),
        audit_broken_at=broken,
    )


def _what_is_wrong(data: Path, name: str) -> str | None:
    try:
        return None if hash_of(bytes_of(blobs_of(data), name)) == name else "damaged"
    except FileNotFoundError:
        return "missing"
    except OSError:  # a sector that cannot be read, or a link where the file should be
        return "damaged"


def _still_wrong(data: Path, database: str | None, wrong: dict[str, str]) -> tuple[Wrong, ...]:
    """Leave out what the service has removed since: it is missing, and nothing needs it."""
    with records_now(data, database) as snapshot:
        listed = inventory(snapshot)
        holders = _holders(snapshot, set(wrong))
    return tuple(
        Wrong(digest=f"sha256:{name}", what=what, needed_by=tuple(holders[name]))
        for name, what in wrong.items()
        if _matters(listed, name, what)
    )


def _matters(listed: Inventory, name: str, what: str) -> bool:
    # A row that nothing names may be without bytes: a kill can leave that behind.
    return name in listed.needed or (what == "damaged" and name in listed.loose)


def _holders(snapshot: Snapshot, names: set[str]) -> dict[str, list[str]]:
    holders: dict[str, list[str]] = {name: [] for name in names}
    for who, file in _named_files(snapshot):
        if file.digest.hex in names:
            holders[file.digest.hex].append(f"{file.name} of {who}")
    return holders


def _named_files(snapshot: Snapshot) -> Iterator[tuple[str, FileEntry]]:
    for run in every(snapshot, RunRecord):
        yield from ((f"run {run.name}", file) for file in run.files)
    for held_out in every(snapshot, HeldOutRecord):
        yield f"held-out set {held_out.name}", held_out.file
    for kept in every(snapshot, CheckpointRecord):
        if kept.removed is None:
            who = f"checkpoint {kept.id} (run {kept.run}, step {kept.step})"
            yield from ((who, file) for file in kept.manifest.files)
    for merge in every(snapshot, ArtifactRecord):
        if merge.removed is None:
            who = f"merge {merge.id} (run {merge.run})"
            yield from ((who, file) for file in merge.manifest.files)


def _size(data: Path, name: str) -> int:
    try:
        return place_of(blobs_of(data), name).stat().st_size
    except FileNotFoundError:
        return 0


def _with_damaged_aside(data: Path, found: Scrubbed) -> Scrubbed:
    wrong = tuple(
        replace(item, moved_to=str(_move_aside(data, item.digest.removeprefix("sha256:"))))
        if item.what == "damaged"
        else item
        for item in found.wrong
    )
    return replace(found, wrong=wrong)


def _move_aside(data: Path, name: str) -> Path:
    """Move a blob into quarantine under a name that nothing has there, durably.

    Of a file that was registered in place only the note is moved; the file is not ours.
    """
    quarantine = data / QUARANTINE
    quarantine.mkdir(mode=0o700, exist_ok=True)
    names = (name if number == 1 else f"{name}.{number}" for number in count(1))
    aside = next(quarantine / each for each in names if not (quarantine / each).exists())
    place = kept_at(blobs_of(data), name)
    place.rename(aside)
    for folder in (quarantine, place.parent, data):
        sync(folder)
    return aside
