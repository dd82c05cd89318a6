"""What lies in a data folder, and what its database says must lie there, without disturbing it.

Everything here works beside a running service: the database is looked at through a copy of it, so
no newer program changes the schema under an older one, and blobs are only read.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import MissingError, RefusedError
from ckptmerge.formats.claim import ClaimedFolder
from ckptmerge.storage.blobs import BlobWriter
from ckptmerge.storage.folder import IN_PLACE
from ckptmerge.storage.in_place import InPlaceNotes
from ckptmerge.storage.postgres import looking_at
from ckptmerge.storage.postgres_url import without_secrets
from ckptmerge.storage.records import BlobRecord
from ckptmerge.storage.sqlite import SqliteStore, sqlite_driver
from ckptmerge.storage.store import Snapshot
from ckptmerge.workflow.collect import named_blobs
from ckptmerge.workflow.stored import every
from service.data_folder import BLOBS, DATABASE
from service.database import mark_of, require_match

READ_AT_ONCE = 8 * 2**20
"""Bytes."""

_SHOWN = 20
"""Lines that a message holds; of a disk that is gone there may be very many."""

_PATIENCE = 10_000
"""Milliseconds that a copy waits for whoever holds the database."""

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The blobs that a database speaks of, in hexadecimal, with their sizes in bytes."""

    needed: Mapping[str, int]
    """Named by a checkpoint, merge, held-out set, run or study, or said to last: must be there."""
    loose: Mapping[str, int]
    """On record, and named by nothing (yet): the service may remove them at any moment."""


def require_data_folder(data: Path) -> None:
    """Check that a folder is one that a service has kept its data in, its records among it.

    Raises:
        MissingError: it holds no database.
        RefusedError: its records are in PostgreSQL.
    """
    if mark_of(data) is not None:
        raise RefusedError(
            f"the records of {data} are in PostgreSQL, whose own programs copy them: run pg_dump "
            "first and copy the folder second, since a file is there before the record that names "
            "it. To have them back, restore the dump, put the folder beside it, and let `ckptmerge "
            "scrub` say whether retention has removed files between the two"
        )
    if not (data / DATABASE).is_file():
        raise MissingError(
            f"{data} holds no {DATABASE}; name the folder that `ckptmerge serve --data` was given"
        )


def copy_database(data: Path, copy: Path) -> None:
    """Write the database as it stands at one moment to a new file, durably.

    The copy is one file without a write-ahead log; the service goes on writing meanwhile.

    Raises:
        MissingError: there is no database.
        RefusedError: the database is damaged, or the copy cannot be written.
    """
    require_data_folder(data)
    driver = sqlite_driver()
    source = f"{(data / DATABASE).absolute().as_uri()}?mode=rw"
    try:
        with closing(driver.connect(source, uri=True, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
            connection.execute("VACUUM INTO ?", (str(copy),))
    except driver.Error as error:
        raise RefusedError(
            f"cannot copy the database {data / DATABASE}: {error}; if it says malformed, stop the "
            "service and restore the last backup, otherwise see that there is room for the copy"
        ) from error
    copy.chmod(0o600)
    sync(copy)


@contextmanager
def records_of(database: Path) -> Iterator[Snapshot]:
    """Look at the records in a copied database, and leave its file as it is.

    Raises:
        InvalidInputError: it was written by a newer version of this program.
    """
    scratch = ClaimedFolder(database.parent, ".records-")
    try:
        # Opening may bring the schema up to date, which changes the file.
        store = SqliteStore(Path(shutil.copyfile(database, scratch.path / DATABASE)))
        try:
            with store.read() as snapshot:
                yield snapshot
        finally:
            store.close()
    finally:
        scratch.remove()


@contextmanager
def records_now(data: Path, database: str | None = None) -> Iterator[Snapshot]:
    """Look at the records of a data folder as they stand, beside whoever serves it.

    Args:
        data: The folder.
        database: The PostgreSQL database of its records; None where they are in the folder.

    Raises:
        MissingError: there is no database.
        RefusedError: the database is damaged or another folder's, or there is no room to copy it.
        InvalidInputError: it was written by a newer version of this program.
        StoreUnavailableError: PostgreSQL does not answer.
    """
    if database is not None:
        with looking_at(database) as (identity, snapshot):
            require_match(data, identity, without_secrets(database))
            yield snapshot
        return
    with tempfile.TemporaryDirectory(prefix="ckptmerge-records-") as scratch:
        copy = Path(scratch) / DATABASE
        copy_database(data, copy)
        with records_of(copy) as snapshot:
            yield snapshot


def inventory(snapshot: Snapshot) -> Inventory:
    """List the blobs that were acknowledged.

    A blob without a row is not among them, even where a record names it: the service has found it
    lost already, and said so under the checkpoint's ``missing``.
    """
    named = named_blobs(snapshot)
    needed: dict[str, int] = {}
    loose: dict[str, int] = {}
    for row in every(snapshot, BlobRecord):
        kept = needed if row.lasting or row.hex in named else loose
        kept[row.hex] = row.size
    return Inventory(needed=needed, loose=loose)


def place_of(blobs: Path, name: str) -> Path:
    """Return where a blob lies beneath its folder, as `ckptmerge.storage.folder` lays it out."""
    return blobs / "sha256" / name[:2] / name


def blobs_beneath(blobs: Path) -> Iterator[str]:
    """Name, in hexadecimal, every blob that lies in a folder."""
    for file in (blobs / "sha256").glob("[0-9a-f][0-9a-f]/*"):
        if _HEX.fullmatch(file.name):
            yield file.name


def bytes_of(blobs: Path, name: str) -> Path:
    """Return where a blob's bytes lie: in their place, or where a file was registered in place.

    Raises:
        FileNotFoundError: nowhere, or the file elsewhere is not what it was.
    """
    place = place_of(blobs, name)
    noted = None if place.exists() else InPlaceNotes(blobs / IN_PLACE).find(Digest(name))
    if noted is None:
        return place
    if not noted.is_unchanged():
        raise FileNotFoundError(f"{noted.path} is gone, or has changed since it was registered")
    return Path(noted.path)


def kept_at(blobs: Path, name: str) -> Path:
    """Return what the service itself keeps of a blob: its bytes, or a note of where they lie."""
    place = place_of(blobs, name)
    return place if place.exists() else InPlaceNotes(blobs / IN_PLACE).note(Digest(name))


def blobs_of(data: Path) -> Path:
    """Return the folder of a data folder's blobs."""
    return data / BLOBS


def hash_of(path: Path) -> str:
    """Read a file once, and return its SHA-256 in hexadecimal.

    Raises:
        FileNotFoundError: there is no such file.
    """
    found = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        # What is read once should not push out of the page cache what others read again.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NOREUSE)
        buffer = memoryview(bytearray(READ_AT_ONCE))
        while count := file.readinto(buffer):
            found.update(buffer[:count])
    return found.hexdigest()


def copy_into(writer: BlobWriter, source: Path) -> None:
    """Write a file's bytes as a blob, and commit it.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidInputError: the bytes are not the ones that were announced.
        OutOfSpaceError: the disk is full.
    """
    with source.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(READ_AT_ONCE))
        while count := file.readinto(buffer):
            writer.write(buffer[:count])
    writer.commit()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def listing(lines: Sequence[str]) -> str:
    """Write lines for a message, one beneath the other, and say how many more there are."""
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "".join(f"\n  {line}" for line in (*lines[:_SHOWN], *more))
