"""A backup of a data folder, taken while the service runs.

Database first, then every blob that the copy speaks of: a blob never changes, and is there before
the row that names it. It may go meanwhile, when retention lets it; then the copied database is out
of date, and is copied again. Only the manifest, written last, makes files a backup.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    OutputExistsError,
    RefusedError,
    TooLargeError,
    TruncatedFileError,
)
from ckptmerge.formats.claim import ClaimedFolder
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.records import EventRecord
from ckptmerge.storage.store import Snapshot
from service.data_folder import BLOBS
from service.operation.manifest import (
    MANIFEST,
    BackedUpFile,
    BackupManifest,
    read_manifest,
    write_manifest,
)
from service.operation.stored import (
    Inventory,
    blobs_beneath,
    blobs_of,
    bytes_of,
    copy_database,
    copy_into,
    hash_of,
    inventory,
    listing,
    place_of,
    records_now,
    records_of,
    require_data_folder,
    sync,
)

_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
"""Other disk, or a file system that links no files: then bytes are copied."""


@dataclass(frozen=True, kw_only=True)
class BackedUp:
    """What a backup holds, and how it came there."""

    manifest: BackupManifest
    linked: int
    """Blobs that share their bytes on the disk with the data folder's."""
    copied: int
    present: int
    """Blobs that an earlier backup in the same folder had brought; they are not read again."""
    removed: int
    """Blobs that the earlier one held, and the service no longer has."""


def back_up(data: Path, out: Path, *, now: float) -> BackedUp:
    """Back up a data folder, into a new folder or over an earlier backup of it.

    A new folder appears when it is whole. An earlier backup stands for its own moment until the
    new manifest takes the place of the old one.

    Args:
        data: The folder of a service, running or not.
        out: The backup.
        now: Seconds since 1970.

    Raises:
        MissingError: ``data`` is not a service's data folder.
        OutputExistsError: ``out`` is something else than a backup of this service, or is being
            written.
        RefusedError: blobs are missing or damaged; the message names them. No backup is made.
        OutOfSpaceError: the disk is full. No backup is made.
    """
    require_data_folder(data)
    if (out / MANIFEST).exists():
        with _held(out):
            _require_same_service(data, out)
            return _Backup(data, out).write(now)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExistsError(
            f"{out} exists and is no backup; name a folder that does not exist, or a backup of "
            "the same service, which is then brought up to date"
        )
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    partial = ClaimedFolder(out.absolute().parent, f".{out.name}.partial-")
    try:
        partial.path.chmod(0o700)
        taken = _Backup(data, partial.path).write(now)
        _publish(partial.path, out)
    finally:
        partial.remove()
    return taken


def _publish(partial: Path, out: Path) -> None:
    try:
        partial.rename(out)
    except OSError as error:
        raise OutputExistsError(
            f"cannot give the backup its name {out}: {error.strerror}; name another folder"
        ) from error
    sync(out.absolute().parent)


def _require_same_service(data: Path, out: Path) -> None:
    """Refuse to write one service's backup over another's: what the other had would be removed."""
    with records_of(out / read_manifest(out).database_name) as snapshot:
        earlier = _first_event(snapshot)
    with records_now(data) as snapshot:
        now = _first_event(snapshot)
    if earlier is not None and earlier != now:
        raise OutputExistsError(
            f"{out} is the backup of another service than the one whose data is {data}; name "
            "another folder"
        )


def _first_event(snapshot: Snapshot) -> str | None:
    """Return what tells services apart: events have random ids, and stay for ever."""
    first = snapshot.find(EventRecord, limit=1)
    return first[0].id if first else None


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Keep others from writing the same backup; the kernel's lock ends with its holder."""
    descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        yield
    except BlockingIOError as error:
        raise OutputExistsError(
            f"{out} is being written by another backup; wait for it, or name another folder"
        ) from error
    finally:
        os.close(descriptor)


@dataclass
class _Backup:
    """One backup on its way into a folder."""

    data: Path
    folder: Path
    held: dict[str, int] = field(default_factory=dict[str, int])
    """Blobs that are in the backup, with their sizes."""
    linked: int = 0
    copied: int = 0
    present: int = 0
    damaged: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._blobs = self.folder / BLOBS
        self._store = FolderBlobStore(self._blobs, reserve=0)

    def write(self, now: float) -> BackedUp:
        """Bring the folder to what the data folder holds now, and say so in its manifest."""
        database = self.folder / ".records.partial"
        try:
            listed = self._take_all(database)
        finally:
            self._store.close()
        if self.damaged:
            raise RefusedError(_told(self.data, self.damaged))
        manifest = self._manifest(database, listed, now)
        database.rename(self.folder / manifest.database_name)
        self._sync()
        write_manifest(self.folder, manifest)
        removed = self._remove_what_is_not_in(manifest)
        return BackedUp(
            manifest=manifest, linked=self.linked, copied=self.copied, present=self.present,
            removed=removed,
        )  # fmt: skip

    def _take_all(self, database: Path) -> Inventory:
        """Copy the database and its blobs; again where blobs went between the one and the other."""
        before: set[str] = set()
        while True:
            database.unlink(missing_ok=True)
            copy_database(self.data, database)
            with records_of(database) as snapshot:
                listed = inventory(snapshot)
            absent = self._take(listed.needed)
            self._take(listed.loose)
            if not absent:
                return listed
            # A database copied after they went would not need them, had they gone rightly.
            if lost := sorted(absent & before):
                raise RefusedError(_told(self.data, [f"sha256:{name}: missing" for name in lost]))
            before = absent

    def _take(self, wanted: Mapping[str, int]) -> set[str]:
        """Bring blobs into the backup; return those that are not there."""
        absent: set[str] = set()
        for name, size in wanted.items():
            if name in self.held:
                continue
            try:
                self._take_one(name, size)
            except FileNotFoundError:
                absent.add(name)
            except (DigestMismatchError, TruncatedFileError, TooLargeError):
                self.damaged.append(f"sha256:{name}: other bytes than its name says")
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                self.damaged.append(f"sha256:{name}: the disk cannot read it")
            else:
                self.held[name] = size
        return absent

    def _take_one(self, name: str, size: int) -> None:
        blobs = blobs_of(self.data)
        source, place = bytes_of(blobs, name), place_of(self._blobs, name)
        with suppress(FileNotFoundError):
            if place.stat().st_size == size:
                self.present += 1
                return
            place.unlink()
        # A trainer may write to a file of its own again, and a link would bring that with it.
        own = source == place_of(blobs, name)
        if own and self._linked_to(source, place):
            self.linked += 1
            return
        with self._store.writer(size=size, expected=Digest(name)) as writer:
            copy_into(writer, source)
        self.copied += 1

    def _linked_to(self, source: Path, place: Path) -> bool:
        """Give a blob a second name in the backup; False where that cannot be done here.

        Raises:
            DigestMismatchError: its bytes are not those that it stands for.
        """
        place.parent.mkdir(exist_ok=True)
        try:
            # Linked first: from then on the service can remove its own name, and nothing is lost.
            place.hardlink_to(source)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return False
        if hash_of(place) != place.name:
            place.unlink()
            raise DigestMismatchError(f"{source} holds other bytes than its name says")
        return True

    def _manifest(self, database: Path, listed: Inventory, now: float) -> BackupManifest:
        spoken_of = {**listed.needed, **listed.loose}
        kept = sorted((n, size) for n, size in self.held.items() if n in spoken_of)
        return BackupManifest(
            created=datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
            database=BackedUpFile(
                digest=f"sha256:{hash_of(database)}", size=database.stat().st_size
            ),
            blobs=tuple(BackedUpFile(digest=f"sha256:{name}", size=size) for name, size in kept),
            blob_count=len(kept),
            blob_bytes=sum(size for _, size in kept),
        )

    def _sync(self) -> None:
        """Wait until every name that the manifest is going to rely on is on the disk."""
        top = self._blobs / "sha256"
        for folder in (*top.iterdir(), top, self._blobs, self.folder):
            sync(folder)

    def _remove_what_is_not_in(self, manifest: BackupManifest) -> int:
        kept = {blob.hex for blob in manifest.blobs}
        gone = [name for name in blobs_beneath(self._blobs) if name not in kept]
        for name in gone:
            place_of(self._blobs, name).unlink()
        for database in self.folder.glob("records-*.sqlite"):
            if database.name != manifest.database_name:
                database.unlink()
        return len(gone)


def _told(data: Path, wrong: list[str]) -> str:
    return (
        f"{data} is damaged, so no backup was made of it; {len(wrong)} files are wrong:"
        f"{listing(wrong)}\n`ckptmerge scrub --data {data}` says what needs them; after "
        "`ckptmerge scrub --repair` and a start of the service, what is left can be backed up"
    )
