"""The store in one SQLite file.

Rules that keep what was acknowledged: a write-ahead log with ``synchronous=FULL``, so a commit
survives the loss of power; one writing connection, whose transactions begin ``IMMEDIATE``, so none
fails half-way because another came first; readers cannot write. SQLite itself must be 3.51.3 or
newer: older ones can corrupt a write-ahead log that is checkpointed while it is written.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Engine, MetaData, Table, create_engine, event, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from ckptmerge.errors import InvalidInputError
from ckptmerge.storage.migrations.apply import bring_up_to_date
from ckptmerge.storage.records import TABLES, R
from ckptmerge.storage.schema import tables

FIRST_SAFE_VERSION = (3, 51, 3)

_READ_PRAGMAS = ("busy_timeout = 10000", "query_only = ON", "trusted_schema = OFF")
_WRITE_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "busy_timeout = 10000",
    "foreign_keys = ON",
    "trusted_schema = OFF",
)


class SqliteStore:
    """Records in a SQLite file, made and brought up to date where needed.

    Raises:
        InvalidInputError: the SQLite library is too old, or the file was written by a newer
            version of this program.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        driver = sqlite_driver()
        self._writing = _engine(path, driver, "IMMEDIATE", _WRITE_PRAGMAS)
        self._reading = _engine(path, driver, "DEFERRED", _READ_PRAGMAS)
        self._lock = Lock()
        bring_up_to_date(self._writing, path)
        self._tables = tables(MetaData())
        self._writer = self._writing.connect()

    @contextmanager
    def read(self) -> Iterator["_SqliteUnit"]:
        """Look at the records in one transaction."""
        with self._reading.connect() as connection, connection.begin():
            yield _SqliteUnit(connection, self._tables)

    @contextmanager
    def write(self) -> Iterator["_SqliteUnit"]:
        """Change records; the commit is on the disk when the block ends."""
        with self._lock, self._writer.begin():
            yield _SqliteUnit(self._writer, self._tables)

    def close(self) -> None:
        """Close the file; the last connection moves the log into it."""
        with self._lock:
            self._writer.close()
            self._writing.dispose()
            self._reading.dispose()


class _SqliteUnit:
    def __init__(self, connection: Connection, known: dict[str, Table]) -> None:
        self._connection = connection
        self._known = known

    def get(self, kind: type[R], key: str) -> R | None:
        table = self._known[TABLES[kind]]
        body = self._connection.execute(
            select(table.c.body).where(table.c.key == key)
        ).scalar_one_or_none()
        return None if body is None else _codec(kind).validate_json(body)

    def find(
        self,
        kind: type[R],
        /,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        **equal: str | int,
    ) -> list[R]:
        table = self._known[TABLES[kind]]
        order = table.c.seq.desc() if newest_first else table.c.seq
        query = select(table.c.body).where(*self._where(kind, equal)).order_by(order).limit(limit)
        if after is not None:
            place = select(table.c.seq).where(table.c.key == after).scalar_subquery()
            query = query.where(table.c.seq < place if newest_first else table.c.seq > place)
        codec = _codec(kind)
        return [codec.validate_json(body) for body in self._connection.execute(query).scalars()]

    def count(self, kind: type[R], /, **equal: str | int) -> int:
        table = self._known[TABLES[kind]]
        query = select(func.count()).select_from(table).where(*self._where(kind, equal))
        return self._connection.execute(query).scalar_one()

    def insert(self, record: R) -> R:
        key = getattr(record, record.KEY)
        table = self._known[TABLES[type(record)]]
        if self.count(type(record), **{record.KEY: key}):
            raise ValueError(f"{type(record).__name__} {key!r} exists")
        self._connection.execute(table.insert().values(key=key, **_columns(record)))
        return record

    def update(self, record: R) -> R:
        key = getattr(record, record.KEY)
        table = self._known[TABLES[type(record)]]
        query = table.update().where(table.c.key == key).values(**_columns(record))
        if self._connection.execute(query).rowcount != 1:
            raise ValueError(f"{type(record).__name__} {key!r} does not exist")
        return record

    def delete(self, kind: type[R], key: str) -> None:
        table = self._known[TABLES[kind]]
        self._connection.execute(table.delete().where(table.c.key == key))

    def _where(self, kind: type[Any], equal: dict[str, str | int]) -> list[Any]:
        table = self._known[TABLES[kind]]
        unknown = equal.keys() - {kind.KEY, *kind.INDEXED}
        if unknown:
            raise ValueError(f"{kind.__name__} is not looked up by {sorted(unknown)}")
        return [
            (table.c.key if name == kind.KEY else table.c[name]) == value
            for name, value in equal.items()
        ]


def _columns(record: Any) -> dict[str, Any]:
    body = _codec(type(record)).dump_json(record).decode()
    return {"body": body, **{name: getattr(record, name) for name in record.INDEXED}}


@cache
def _codec(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


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


def _engine(path: Path, driver: ModuleType, begin: str, pragmas: tuple[str, ...]) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        module=driver,
        poolclass=NullPool,
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
