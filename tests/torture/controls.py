"""The same deeds with one rule broken: what finds nothing wrong with these would find nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.folder import FolderBlobStore
from service.settings import Settings
from tests.torture import deeds
from tests.torture.journal import Journal
from tests.torture.one_thread import Asking


def take_in_in_place(settings: Settings, journal: Journal) -> None:
    """Take uploads in with blobs written under the names that they are found by."""

    def publish(self: FolderBlobStore, partial: Path, digest: Digest) -> None:
        place = self._place(digest)
        place.parent.mkdir(exist_ok=True)
        content = partial.read_bytes()
        with place.open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            file.write(content[len(content) // 2 :])

    with patch.object(FolderBlobStore, "_publish", publish):
        deeds.take_in(settings, journal)


def take_in_acknowledged_early(settings: Settings, journal: Journal) -> None:
    """Take uploads in, each acknowledged when it has come and before it is stored."""
    real = Asking.send

    async def early(self, method, path, body=b"", **headers):
        if "/blobs/" in path:
            journal.say(blob=path.rpartition(":")[2])
        return await real(self, method, path, body, **headers)

    with patch.object(Asking, "send", early):
        deeds.take_in(settings, journal)


def keep_arriving_without_syncs(settings: Settings, journal: Journal) -> None:
    """Take checkpoints in, and sync none of their files; SQLite has syncs of its own."""
    with without_syncs():
        deeds.keep_arriving(settings, journal)


def keep_arriving_without_synchronous(settings: Settings, journal: Journal) -> None:
    """Take checkpoints in, and let SQLite not wait for the disk."""
    with without_synchronous():
        deeds.keep_arriving(settings, journal)


@contextmanager
def without_syncs() -> Iterator[None]:
    """Let every sync of a file or folder of ours do nothing; SQLite has its own."""
    with patch.object(os, "fsync", _nothing), patch.object(os, "fdatasync", _nothing):
        yield


@contextmanager
def without_synchronous() -> Iterator[None]:
    """Let SQLite hand its writes to the system and not wait for the disk."""
    with patch("ckptmerge.storage.sqlite._WRITE_PRAGMAS", _lax()):
        yield


def _lax() -> tuple[str, ...]:
    from ckptmerge.storage.sqlite import _WRITE_PRAGMAS

    return (*(p for p in _WRITE_PRAGMAS if "synchronous" not in p), "synchronous = OFF")


def _nothing(_descriptor: int) -> None:
    """Sync nothing."""
