"""Write the database of a released version as SQL text, with the rows of a judged run in it.

Run it within a checkout of that version, so that its own code makes tables and rows:

    git archive <commit> | tar -x -C /tmp/version
    cd /tmp/version && PYTHONPATH=. python <this file> <this folder>/0001.sql
"""

import sqlite3
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ckptmerge.storage import records
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.sqlite import SqliteStore
from tests.unit.workflow.conducted import World


def main(out: Path) -> None:
    """Judge a run, and write its database to a file."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "s.sqlite"
        store, blobs = SqliteStore(path), FolderBlobStore(Path(scratch) / "blobs", reserve=0)
        world = World(store=store, blobs=blobs)
        world.arrive(100)
        world.arrive(200)
        world.conclude()
        if hasattr(records, "UploadRecord"):
            begin_upload(store)
        blobs.close()
        store.close()
        with sqlite3.connect(path) as database:
            out.write_text("\n".join(database.iterdump()) + "\n", encoding="utf-8")
        database.close()


def begin_upload(store: SqliteStore) -> None:
    """Put an upload on record that has come half the way."""
    from ckptmerge.domain.digest import Digest
    from ckptmerge.domain.upload import Upload

    upload = Upload(Digest.of_bytes(b"upload"), 10, 5)
    with store.write() as unit:
        unit.insert(records.UploadRecord(id="u", state=upload.state, upload=upload, created=0.0))


main(Path(sys.argv[1]))
