"""A data folder with a judged run in it, for tests of keeping it safe."""

import atexit
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import put
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.records import RECORDS
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.workflow.blob_records import put_on_record
from ckptmerge.workflow.reconcile import reconcile
from service.data_folder import BLOBS, DATABASE
from service.operation.stored import blobs_beneath, place_of
from tests.unit.workflow.conducted import World

NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Stores:
    """A data folder's stores, open as a service has them."""

    store: SqliteStore
    blobs: FolderBlobStore


@contextmanager
def stores_in(data: Path) -> Iterator[Stores]:
    """Open a data folder's stores as a service does, and let them stay open."""
    data.mkdir(exist_ok=True)
    store = SqliteStore(data / DATABASE)
    blobs = FolderBlobStore(data / BLOBS, reserve=0)
    try:
        yield Stores(store, blobs)
    finally:
        blobs.close()
        store.close()


@cache
def _judged() -> Path:
    """Make a data folder in which two checkpoints have arrived and their merge is promoted."""
    folder = TemporaryDirectory(prefix="ckptmerge-judged-")
    atexit.register(folder.cleanup)
    with stores_in(Path(folder.name)) as stores:
        world = World(store=stores.store, blobs=stores.blobs)
        world.arrive(100)
        world.arrive(200)
        assert world.conclude().verdict is not None
        # Its worker leaves bytes without their rows; a service puts those on record when it starts.
        reconcile(stores.store, stores.blobs, now=NOW, new_id=world.new_id)
    return Path(folder.name)


def judged_folder(data: Path) -> Path:
    """Copy that folder to where a test may harm it."""
    return shutil.copytree(_judged(), data)


def upload(world: Stores, content: bytes, *, lasting: bool = True) -> Digest:
    """Put bytes on record that no checkpoint names."""
    digest = put(world.blobs, content)
    with world.store.write() as unit:
        put_on_record(unit, world.blobs, digest, now=NOW, lasting=lasting)
    return digest


def records_in(data: Path) -> dict[str, list[object]]:
    """Return every record of a folder that nobody has open."""
    store = SqliteStore(data / DATABASE)
    try:
        with store.read() as snapshot:
            return {name: snapshot.find(kind) for name, kind in RECORDS.items()}
    finally:
        store.close()


def bytes_in(folder: Path) -> dict[str, bytes]:
    """Return every blob's bytes by its name."""
    blobs = folder / BLOBS
    return {name: place_of(blobs, name).read_bytes() for name in blobs_beneath(blobs)}


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file, in this place alone: linked names keep their bytes."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def place(folder: Path, digest: Digest) -> Path:
    """Return where a blob lies in a data folder or a backup."""
    return place_of(folder / BLOBS, digest.hex)
