"""The store in a PostgreSQL database.

Rules that keep what was acknowledged: ``synchronous_commit=on``, so a commit survives the loss of
power; one writer at a time, by a lock that each writing transaction begins with, so that rows are
numbered in the order in which others come to see them, and whoever pages by number misses none;
readers look at one moment (``REPEATABLE READ``) and cannot write. Where the connection is lost the
operation fails, and the next one makes a new connection.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from sqlalchemy import URL, ColumnElement, Engine, MetaData, false, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionLeftError

from ckptmerge.errors import (
    CkptmergeError,
    InvalidInputError,
    MissingError,
    OutOfSpaceError,
    StoreUnavailableError,
)
from ckptmerge.storage.migrations.apply import (
    bring_up_to_date,
    newest_version,
    require_known,
    schema_version,
)
from ckptmerge.storage.postgres_session import reading_engine, writing_engine
from ckptmerge.storage.postgres_url import parsed, without_secrets
from ckptmerge.storage.schema import tables
from ckptmerge.storage.sql import SqlUnit
from ckptmerge.storage.store import Snapshot

OLDEST_VERSION = 14
"""PostgreSQL's own support of version 13 ended in November 2025."""

# SQLSTATE, postgresql.org/docs/current/errcodes-appendix.html
_DISK_FULL = "53100"
_READ_ONLY = "25006"


class PostgresStore:
    """Records in a PostgreSQL database, whose tables are made and brought up to date where needed.

    Args:
        url: The database; see `ckptmerge.storage.postgres_url`.
        sole: Whether nobody else who asks for the same may open it, for as long as this is open.

    Raises:
        InvalidInputError: the address is none, the server is too old or stores no UTF-8, the role
            may not make tables, the driver is missing, or the database was written by a newer
            version of this program.
        StoreTakenError: somebody else has it for themselves.
        StoreUnavailableError: the server does not answer.
    """

    def __init__(self, url: str, *, sole: bool = False) -> None:
        address = _address(url)
        self.name = without_secrets(url)
        """The address without its secrets."""
        self._lock = Lock()
        self._tables = tables(MetaData())
        self._reading = reading_engine(address)
        self._writing = writing_engine(address, sole=sole)
        try:
            with _told(self.name):
                _require_fit(self._reading, self.name)
                self.identity = self._prepared()
                """What tells this database from others; dumps of it carry it."""
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[SqlUnit]:
        """Look at the records in one transaction."""
        with _told(self.name), self._reading.begin() as connection:
            yield _PostgresUnit(connection, self._tables)

    @contextmanager
    def write(self) -> Iterator[SqlUnit]:
        """Change records; the commit is on the server's disk when the block ends."""
        with self._lock, _told(self.name), self._writing.begin() as connection:
            yield _PostgresUnit(connection, self._tables)

    def close(self) -> None:
        """Close the connections, and let others have the database."""
        with self._lock:
            self._writing.dispose()
            self._reading.dispose()

    def _prepared(self) -> str:
        """Bring the schema up to date, and return the identity that it was given when it was new.

        Raises:
            InvalidInputError: this role may not do that.
        """
        try:
            bring_up_to_date(self._writing, self.name)
            with self._writing.begin() as connection:
                return _given_identity(connection)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "42501":  # insufficient_privilege
                raise
            raise InvalidInputError(
                f"{self.name}: {_first_line(error)}; make its role the owner of the database, or "
                "grant it CREATE and USAGE on its schema"
            ) from error


@contextmanager
def looking_at(url: str) -> Iterator[tuple[str, Snapshot]]:
    """Look at the identity and the records of a database, beside whoever works on it.

    Nothing is changed, so a newer program does not bring the schema up to date under an older one.

    Raises:
        InvalidInputError: the address is none, or the records were written by another version.
        MissingError: there are no records.
        StoreUnavailableError: the server does not answer.
    """
    name, engine = without_secrets(url), reading_engine(_address(url))
    try:
        with _told(name):
            _require_newest(schema_version(engine), name)
            with engine.begin() as connection:
                yield _identity(connection), _PostgresUnit(connection, tables(MetaData()))
    finally:
        engine.dispose()


class _PostgresUnit(SqlUnit):
    def _equal(self, column: ColumnElement[Any], value: str | int) -> ColumnElement[bool]:
        # PostgreSQL's text holds no NUL, so nothing is equal to what has one; asked, it refuses.
        return false() if isinstance(value, str) and "\0" in value else column == value


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Say it where the database, and not the program, is what fails."""
    try:
        yield
    except (DBAPIError, NoConnectionLeftError) as error:
        told = _explained(error, name)
        if told is None:
            raise
        raise told from error


def _explained(error: DBAPIError | NoConnectionLeftError, name: str) -> CkptmergeError | None:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if state == _DISK_FULL:
        return OutOfSpaceError(
            f"the disk of {name} is full and nothing was recorded; free some space there, then "
            "try again"
        )
    outside = isinstance(error, OperationalError | InterfaceError | NoConnectionLeftError)
    if outside or state == _READ_ONLY:
        return StoreUnavailableError(
            f"{name} does not answer as it should ({_first_line(error)}); what it has not "
            "acknowledged may be recorded or not: ask again"
        )
    return None


def _address(url: str) -> URL:
    try:
        return parsed(url)
    except ValueError as error:
        raise InvalidInputError(str(error)) from error


def _require_fit(engine: Engine, name: str) -> None:
    """Check the server's version, and what it writes text as."""
    with engine.connect() as connection:
        number = int(_shown(connection, "server_version_num"))
        encoding = _shown(connection, "server_encoding")
    if number < OLDEST_VERSION * 10_000:
        raise InvalidInputError(
            f"{name} is PostgreSQL {number // 10_000}; {OLDEST_VERSION} or newer is needed"
        )
    if encoding != "UTF8":
        raise InvalidInputError(
            f"{name} keeps its text as {encoding}; create the database with ENCODING 'UTF8'"
        )


def _require_newest(version: str | None, name: str) -> None:
    if version is None:
        raise MissingError(f"{name} holds no records; name the database that a service works on")
    require_known(version, name)
    if version != newest_version():
        raise InvalidInputError(
            f"{name} has schema {version} of an older version; a start of this version's service "
            "brings it up to date"
        )


def _shown(connection: Connection, setting: str) -> str:
    return connection.execute(text("SELECT current_setting(:name)"), {"name": setting}).scalar_one()


def _given_identity(connection: Connection) -> str:
    if connection.scalar(text("SELECT to_regclass('ckptmerge_identity')")) is None:
        connection.execute(text("CREATE TABLE ckptmerge_identity (id text NOT NULL)"))
        connection.execute(text("INSERT INTO ckptmerge_identity SELECT gen_random_uuid()"))
    return _identity(connection)


def _identity(connection: Connection) -> str:
    return connection.execute(text("SELECT id FROM ckptmerge_identity")).scalar_one()


def _first_line(error: Exception) -> str:
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__
