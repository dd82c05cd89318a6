"""A data folder out of a backup: every byte checked on its way, all of it or nothing."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    InvalidInputError,
    OutputExistsError,
    TooLargeError,
    TruncatedFileError,
)
from ckptmerge.formats.claim import ClaimedFolder
from ckptmerge.storage.folder import FolderBlobStore
from service.data_folder import BLOBS, DATABASE
from service.operation.manifest import BackupManifest, read_manifest
from service.operation.stored import copy_into, hash_of, listing, place_of, sync


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was put back."""

    created: str
    """The moment that the backup stands for."""
    blobs: int
    bytes: int


def restore(backup: Path, data: Path) -> Restored:
    """Make a new data folder out of a backup.

    Files are copied, never linked: what becomes of the data folder must not become of the backup.

    Args:
        backup: A folder that `back_up` has written.
        data: The new data folder; it appears when it is whole.

    Raises:
        MissingError: the folder is no backup.
        OutputExistsError: there is something at ``data``.
        DigestMismatchError: files of the backup are damaged or missing; the message names them.
        OutOfSpaceError: the disk is full; nothing is left.
    """
    manifest = read_manifest(backup)
    _require_new(data)
    data.absolute().parent.mkdir(parents=True, exist_ok=True)
    partial = ClaimedFolder(data.absolute().parent, f".{data.name}.partial-")
    try:
        partial.path.chmod(0o700)
        wrong = [*_put_database(backup, manifest, partial.path)]
        wrong += _put_blobs(backup, manifest, partial.path)
        if wrong:
            raise DigestMismatchError(_told(backup, wrong, 1 + manifest.blob_count))
        sync(partial.path)
        _publish(partial.path, data)
    finally:
        partial.remove()
    return Restored(created=manifest.created, blobs=manifest.blob_count, bytes=manifest.blob_bytes)


def _require_new(data: Path) -> None:
    if data.is_symlink() or (data.exists() and (not data.is_dir() or any(data.iterdir()))):
        raise OutputExistsError(
            f"{data} exists; restore into a folder that does not, and move it to its place when "
            "you have looked at it"
        )


def _publish(partial: Path, data: Path) -> None:
    try:
        partial.rename(data)
    except OSError as error:
        raise OutputExistsError(
            f"cannot give the restored folder its name {data}: {error.strerror}; name another one"
        ) from error
    sync(data.absolute().parent)


def _put_database(backup: Path, manifest: BackupManifest, folder: Path) -> list[str]:
    source, place = backup / manifest.database_name, folder / DATABASE
    try:
        shutil.copyfile(source, place)
    except FileNotFoundError:
        return [f"{source.name}: missing"]
    place.chmod(0o600)
    sync(place)
    damaged = hash_of(place) != manifest.database.hex
    return [f"{source.name}: not the bytes that were backed up"] if damaged else []


def _put_blobs(backup: Path, manifest: BackupManifest, folder: Path) -> list[str]:
    """Copy every blob; return what is wrong, having looked at all of them."""
    wrong: list[str] = []
    store = FolderBlobStore(folder / BLOBS, reserve=0)
    try:
        for blob in manifest.blobs:
            source = place_of(backup / BLOBS, blob.hex)
            try:
                with store.writer(size=blob.size, expected=Digest(blob.hex)) as writer:
                    copy_into(writer, source)
            except FileNotFoundError:
                wrong.append(f"{blob.digest}: missing")
            except (DigestMismatchError, TruncatedFileError, TooLargeError) as error:
                wrong.append(f"{blob.digest}: {_kind(error)}")
    finally:
        store.close()
    return wrong


def _kind(error: InvalidInputError) -> str:
    if isinstance(error, TruncatedFileError):
        return "bytes are missing at its end"
    return "too long" if isinstance(error, TooLargeError) else "other bytes than its name says"


def _told(backup: Path, wrong: list[str], among: int) -> str:
    return (
        f"{backup} is damaged, so nothing was restored; {len(wrong)} of {among} files are wrong:"
        f"{listing(wrong)}\nRestore another backup; or, where the service's data folder still has "
        "these files, back it up into this folder again once they are moved away"
    )
