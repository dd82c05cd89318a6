"""A data folder after a disaster: started on as the service starts, and looked at from outside."""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.records import ArtifactRecord, BlobRecord, CheckpointRecord, UploadRecord
from ckptmerge.storage.store import Snapshot
from service.app import wall_clock
from service.data_folder import BLOBS, DATABASE, LOCK
from service.engine import Workers
from service.serve import open_data
from service.settings import Settings
from service.tidying import Tidying
from tests.torture.journal import Journal


@dataclass
class Seen:
    """What was found; nothing of it should be."""

    lost: list[str] = field(default_factory=list)
    """Acknowledged, and not there or not right."""
    partial: list[str] = field(default_factory=list)
    """Visible, and not whole."""
    left: list[str] = field(default_factory=list)
    """Files that nobody accounts for."""

    def __bool__(self) -> bool:
        return bool(self.lost or self.partial or self.left)

    def __str__(self) -> str:
        return f"lost {self.lost[:3]}, partial {self.partial[:3]}, left {self.left[:3]}"

    def add(self, other: "Seen") -> None:
        """Take over what was found elsewhere."""
        self.lost += other.lost
        self.partial += other.partial
        self.left += other.left


def look(settings: Settings, journal: Journal) -> Seen:
    """Start on a data folder, let it put itself right, and compare it with what clients know."""
    facts = journal.facts()
    with capture_logs(), open_data(settings) as (store, blobs), Workers(settings.data.absolute()):
        tidy = Tidying(
            store, blobs, now=wall_clock, new_id=_no_id,
            grace=settings.limits.blob_grace, upload_age=settings.limits.upload_age,
            free=lambda: 0, watermark=0,
        )  # fmt: skip
        tidy(True)
        with store.read() as snapshot:
            seen = Seen(
                lost=list(_lost(snapshot, blobs, facts)),
                partial=[*_wrong_bytes(blobs), *_incomplete(snapshot, blobs), *_damaged(settings)],
            )
            going = {record.id for record in snapshot.find(UploadRecord)}
    seen.left = list(_left(settings.data, going))
    return seen


def _lost(snapshot: Snapshot, blobs: BlobStore, facts: list[dict[str, Any]]) -> Iterator[str]:
    """Name what a client was told of and cannot have any more."""
    lying = set(blobs.partials)
    there = {
        "blob": lambda fact: _is_there(snapshot, blobs, fact["blob"]),
        "checkpoint": lambda fact: _is_registered(snapshot, fact),
        "artifact": lambda fact: _is_promoted(snapshot, fact),
        "upload": lambda fact: _is_going_on(snapshot, blobs, lying, fact),
    }
    for fact in facts:
        for kind, is_there in there.items():
            if kind in fact and not is_there(fact):
                yield f"{kind} {fact}"


def _is_there(snapshot: Snapshot, blobs: BlobStore, name: str) -> bool:
    return blobs.size(Digest(name)) is not None and snapshot.get(BlobRecord, name) is not None


def _is_registered(snapshot: Snapshot, fact: dict[str, Any]) -> bool:
    record = snapshot.get(CheckpointRecord, fact["checkpoint"])
    whole = record is not None and record.removed is None and not record.missing
    return record is not None and whole and str(record.manifest.digest) == fact["digest"]


def _is_promoted(snapshot: Snapshot, fact: dict[str, Any]) -> bool:
    record = snapshot.get(ArtifactRecord, fact["artifact"])
    return record is not None and record.promoted and record.removed is None


def _is_going_on(
    snapshot: Snapshot, blobs: BlobStore, lying: set[str], fact: dict[str, Any]
) -> bool:
    """Say whether an upload is where it was said to be, or farther."""
    record = snapshot.get(UploadRecord, fact["upload"])
    if record is None or record.upload.offset < fact["offset"]:
        return False
    return record.id in lying or blobs.size(record.upload.digest) == record.upload.length


def _wrong_bytes(blobs: BlobStore) -> Iterator[str]:
    """Name blobs whose bytes are not those that they are named after."""
    for digest in blobs:
        path = blobs.path(digest)
        assert path is not None
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest.hex:
                yield f"blob {digest.hex} of {path.stat().st_size} bytes"


def _incomplete(snapshot: Snapshot, blobs: BlobStore) -> Iterator[str]:
    """Name checkpoints and merges that show themselves without all of their files."""
    for kind in (CheckpointRecord, ArtifactRecord):
        for record in snapshot.find(kind):
            if record.removed is None and not getattr(record, "missing", ()):
                for file in record.manifest.files:
                    if blobs.size(file.digest) != file.size:
                        yield f"{record.id} without {file.name}"


def _damaged(settings: Settings) -> Iterator[str]:
    """Name what SQLite finds wrong with the database."""
    with sqlite3.connect(f"file:{settings.data / DATABASE}?mode=ro", uri=True) as database:
        found = [row for (row,) in database.execute("PRAGMA integrity_check")]
    database.close()
    if found != ["ok"]:
        yield f"database: {found[:3]}"


def _left(data: Path, uploads: set[str]) -> Iterator[str]:
    """Name files that are neither blobs, nor the database's, nor those of uploads under way."""
    own = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LOCK}
    for path in data.rglob("*"):
        inside = path.relative_to(data)
        blob = inside.parts[:2] == (BLOBS, "sha256") and len(inside.parts) == 4
        upload = inside.parts[:2] == (BLOBS, "partial") and path.name in uploads
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or (path.is_file() and not (blob or upload or str(inside) in own)):
            yield str(inside)


def _no_id(kind: str) -> str:
    raise AssertionError(f"nothing new is made here, and no {kind}")
