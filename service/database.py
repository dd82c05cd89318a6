"""Where a service keeps its records: in SQLite in its data folder, or in a PostgreSQL database.

Files that no record names are removed after a while, so a folder of files must never come under
records that are not its own. A SQLite database lies in the folder itself. A PostgreSQL database has
an identity, and the folder a mark with the same; they are made before the first file arrives.
"""

import os
from contextlib import suppress
from pathlib import Path

from ckptmerge.errors import InvalidInputError, RefusedError, StoreTakenError
from ckptmerge.storage.durable import sync_folder
from ckptmerge.storage.postgres import PostgresStore
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.storage.store import Store
from service.data_folder import BLOBS, DATABASE
from service.settings import ENVIRONMENT, ConfigurationError, Settings

MARK = "postgresql-database"
"""File of a data folder whose records are in PostgreSQL: the identity of the database."""

VARIABLE = f"{ENVIRONMENT}DATABASE"


def open_records(settings: Settings) -> Store:
    """Open the records that belong to a data folder, for this process alone.

    Raises:
        ConfigurationError: they are somewhere else than the settings say, another service works on
            them, or their database cannot be used.
        StoreUnavailableError: the database does not answer.
    """
    if settings.database is None:
        if mark_of(settings.data) is not None:
            raise ConfigurationError(
                f"the records of {settings.data} are in PostgreSQL; set {VARIABLE} to the address "
                "of that database, or choose another data folder"
            )
        return SqliteStore(settings.data / DATABASE)
    if (settings.data / DATABASE).exists():
        raise ConfigurationError(
            f"the records of {settings.data} are in its {DATABASE}, and nothing moves them; serve "
            f"it without {VARIABLE}, or choose another data folder"
        )
    try:
        store = PostgresStore(settings.database, sole=True)
    except (InvalidInputError, StoreTakenError) as error:
        raise ConfigurationError(str(error)) from error
    try:
        _mark(settings.data, store)
    except BaseException:
        store.close()
        raise
    return store


def mark_of(data: Path) -> str | None:
    """Return the identity of the PostgreSQL database that a data folder belongs to."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return (data / MARK).read_text("ascii").strip()
    return None


def require_match(data: Path, identity: str, name: str) -> None:
    """Check that a database is the one that a data folder belongs to.

    Raises:
        RefusedError: it is another one.
    """
    if mark_of(data) != identity:
        raise RefusedError(
            f"{name} is not the database that the files in {data} belong to: it has the identity "
            f"{identity}, and {data / MARK} says {mark_of(data) or 'nothing'}. Name the one with "
            f"that identity; or, where both were restored together, write {identity} to that file"
        )


def _mark(data: Path, store: PostgresStore) -> None:
    """Bind a data folder without files to its database; one with files must be bound to it."""
    if mark_of(data) == store.identity:
        return
    if next((data / BLOBS / "sha256").glob("*/*"), None) is not None:
        try:
            require_match(data, store.identity, store.name)
        except RefusedError as error:
            raise ConfigurationError(str(error)) from error
    partial = data / f".{MARK}.partial"
    with partial.open("w", encoding="ascii") as file:
        file.write(f"{store.identity}\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(data / MARK)
    sync_folder(data)
