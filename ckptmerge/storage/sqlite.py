"""The store in one SQLite file.

Rules that keep what was acknowledged: a write-ahead log with ``synchronous=FULL``, so a commit
survives the loss of power; one writing connection, whose transactions begin ``IMMEDIATE``, so none
fails half-way because another came first; readers cannot write. SQLite itself must be 3.51.3 or
newer: older ones can corrupt a write-ahead log that is checkpointed while it is written.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from ckptmerge.errors import DiskFailedError, InvalidInputError, OutOfSpaceError
from ckptmerge.storage.durable import sync_file, sync_folder
from ckptmerge.storage.migrations.apply import bring_up_to_date
from ckptmerge.storage.schema import tables
from ckptmerge.storage.sql import SqlUnit

FIRST_SAFE_VERSION = (3, 51, 3)

_FULL = 13
"""SQLITE_FULL (https://sqlite.org/rescode.html); the low byte of an extended result code."""

_FAILING = frozenset({10, 14})
"""SQLITE_IOERR, and SQLITE_CANTOPEN: the log beside the file cannot be made."""

_READ_PRAGMAS = ("busy_timeout = 10000", "query_only = ON", "trusted_schema = OFF")
_WRITE_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "busy_timeout = 10000",
    "foreign_keys = ON",
    "trusted_schema = OFF",
)


_READERS: Mapping[str, Any] = {"poolclass": QueuePool, "pool_size": 8, "max_overflow": -1}
"""Connections for looks are kept: to open one and read the schema takes longer than most looks."""


class SqliteStore:
    """Records in a SQLite file, made and brought up to date where needed.

    Raises:
        InvalidInputError: the SQLite library is too old, or the file was written by a newer
            version of this program.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        driver = sqlite_driver()
        path.touch(mode=0o600)  # else it would be for everybody on the machine to read
        self._writing = _engine(path, driver, "IMMEDIATE", _WRITE_PRAGMAS, {"poolclass": NullPool})
        self._reading = _engine(path, driver, "DEFERRED", _READ_PRAGMAS, _READERS)
        self._lock = Lock()
        bring_up_to_date(self._writing, str(path), set_aside=self._copy_aside)
        self._tables = tables(MetaData())
        self._writer = self._writing.connect()

    @contextmanager
    def read(self) -> Iterator[SqlUnit]:
        """Look at the records in one transaction."""
        with self._disk_errors(), self._reading.connect() as connection, connection.begin():
            yield SqlUnit(connection, self._tables)

    @contextmanager
    def write(self) -> Iterator[SqlUnit]:
        """Change records; the commit is on the disk when the block ends."""
        with self._lock, self._disk_errors(), self._writer.begin():
            yield SqlUnit(self._writer, self._tables)

    def close(self) -> None:
        """Close the file; the last connection moves the log into it."""
        with self._lock:
            self._reading.dispose()
            self._writer.close()
            self._writing.dispose()

    def _copy_aside(self, version: str) -> None:
        """Copy the database durably, as ``<name>.before-<version>``, before it is upgraded."""
        copy = self._path.with_name(f"{self._path.name}.before-{version}")
        partial = copy.with_name(f"{copy.name}.partial")
        partial.unlink(missing_ok=True)
        raw = self._writing.raw_connection()
        try:
            raw.cursor().execute("VACUUM INTO ?", (str(partial),))
        finally:
            raw.close()
        sync_file(partial)
        partial.rename(copy)
        sync_folder(copy.parent)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Say it where the disk is full or fails; SQLite has undone the transaction then.

        A commit whose sync fails is not repeated: the next one writes its own pages over it.
        """
        try:
            yield
        except DBAPIError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if code == _FULL:
                raise OutOfSpaceError(
                    f"the disk of {self._path.name} is full and nothing was recorded; free some "
                    "space, then try again"
                ) from error
            if code in _FAILING:
                raise DiskFailedError(
                    f"the disk of {self._path.name} failed ({error.orig}) and nothing was "
                    "recorded; look at the disk, then try again"
                ) from error
            raise


def sqlite_driver() -> ModuleType:
    """Return a SQLite of this decade: the wheel's where there is one, else Python's own.

    Raises:
        InvalidInputError: neither is new enough.
    """
    try:
        dbapi2 = import_module("pysqlite3.dbapi2")
    except ImportError:
        dbapi2 = sqlite3
    if dbapi2.sqlite_version_info < FIRST_SAFE_VERSION:
        raise InvalidInputError(
            f"this Python comes with SQLite {dbapi2.sqlite_version}, which can corrupt its "
            "write-ahead log (fixed in 3.51.3); install pysqlite3, or a newer Python"
        )
    return dbapi2


def _engine(
    path: Path,
    driver: ModuleType,
    begin: str,
    pragmas: tuple[str, ...],
    pool: Mapping[str, Any],
) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        module=driver,
        **pool,
        connect_args={"check_same_thread": False},
        json_serializer=json.dumps,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        # The driver must not begin transactions of its own, which would be DEFERRED.
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {begin}")

    return engine
