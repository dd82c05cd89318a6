"""A backup's manifest: what it holds. A backup without one is none; it is written last."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError, MissingError
from service.operation.stored import sync

MANIFEST = "manifest.json"
FORMAT = 1
"""Goes up when an older program could not restore what a newer one wrote."""


@dataclass(frozen=True, kw_only=True)
class BackedUpFile:
    """A file of a backup: its bytes, by which it is known."""

    digest: str
    """``sha256:<hex>``; a blob's is also its name."""
    size: int

    def __post_init__(self) -> None:
        Digest.parse(self.digest)

    @property
    def hex(self) -> str:
        """The digest without its scheme."""
        return Digest.parse(self.digest).hex


@dataclass(frozen=True, kw_only=True)
class BackupManifest:
    """What a backup holds."""

    format: int = FORMAT
    created: str
    """When the database was copied: the moment that the backup stands for, in UTC."""
    database: BackedUpFile
    blobs: tuple[BackedUpFile, ...]
    """Sorted by digest."""
    blob_count: int
    blob_bytes: int

    @property
    def database_name(self) -> str:
        """Name of the database's file: another moment's has another one."""
        return f"records-{self.database.hex}.sqlite"


_CODEC = TypeAdapter(BackupManifest)


def write_manifest(backup: Path, manifest: BackupManifest) -> None:
    """Make a backup stand for what its manifest says, in one step that a power cut cannot split."""
    partial = backup / f".{MANIFEST}.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(_CODEC.dump_python(manifest, mode="json"), indent=1) + "\n")
        file.flush()
        os.fsync(descriptor)
    partial.rename(backup / MANIFEST)
    sync(backup)


def read_manifest(backup: Path) -> BackupManifest:
    """Read what a backup says it holds.

    Raises:
        MissingError: the folder is no backup, or not a finished one.
        InvalidInputError: the manifest is damaged, or of a newer format.
    """
    path = backup / MANIFEST
    try:
        manifest = _CODEC.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(
            f"{backup} is no backup: it has no {MANIFEST}; name a folder that `ckptmerge backup "
            "--out` has written"
        ) from error
    except (OSError, ValidationError) as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error}; take another backup, this one does not say what it "
            "holds"
        ) from error
    if manifest.format > FORMAT:
        raise InvalidInputError(
            f"{path} has format {manifest.format}, this version knows {FORMAT}; restore it with "
            "the version that wrote it"
        )
    return manifest
