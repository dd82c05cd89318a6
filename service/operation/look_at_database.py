"""The PostgreSQL database of the records: whether a service could start on it, and keep it."""

from collections.abc import Iterator

from sqlalchemy import URL, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ckptmerge.errors import InvalidInputError
from ckptmerge.storage.migrations.apply import newest_version, require_known, schema_version
from ckptmerge.storage.postgres import OLDEST_VERSION
from ckptmerge.storage.postgres_session import reading_engine, sole_holder
from ckptmerge.storage.postgres_url import parsed, without_secrets
from service.operation.findings import Finding, Verdict

_NAME = "database"


def look_at_database(url: str | None) -> Iterator[Finding]:
    """Look at the database that the settings name, without changing it."""
    if url is None:
        yield Finding(_NAME, Verdict.OK, "SQLite in the data folder")
        return
    name = without_secrets(url)
    try:
        yield from _connected(parsed(url), name)
    except InvalidInputError as error:
        yield Finding(_NAME, Verdict.FAIL, str(error), "pip install 'ckptmerge[postgres]'")
    except DBAPIError as error:
        said = f"{name} does not answer: {str(error.orig).strip().splitlines()[0]}"
        remedy = "see that the server runs, and lets this role connect to this database"
        yield Finding(_NAME, Verdict.FAIL, said, remedy)


def _connected(address: URL, name: str) -> Iterator[Finding]:
    engine = reading_engine(address)
    try:
        version = schema_version(engine)
        with engine.connect() as connection:
            yield _server(connection, name)
            yield _durability(connection)
            yield _schema(connection, version, name)
            yield _alone(connection)
    finally:
        engine.dispose()


def _server(connection: Connection, name: str) -> Finding:
    number = int(_shown(connection, "server_version_num")) // 10_000
    encoding = _shown(connection, "server_encoding")
    if number < OLDEST_VERSION:
        remedy = f"upgrade the server to {OLDEST_VERSION} or newer"
        return Finding(_NAME, Verdict.FAIL, f"{name} is PostgreSQL {number}", remedy)
    if encoding != "UTF8":
        remedy = "create the database with ENCODING 'UTF8'"
        return Finding(_NAME, Verdict.FAIL, f"{name} keeps its text as {encoding}", remedy)
    return Finding(_NAME, Verdict.OK, f"{name}, PostgreSQL {number}")


def _durability(connection: Connection) -> Finding:
    off = [name for name in ("fsync", "full_page_writes") if _shown(connection, name) == "off"]
    if off:
        said = f"{' and '.join(off)} off: what was acknowledged does not survive the loss of power"
        remedy = "turn it on in the server's configuration"
        return Finding("database durability", Verdict.FAIL, said, remedy)
    return Finding("database durability", Verdict.OK, "fsync and full_page_writes are on")


def _schema(connection: Connection, version: str | None, name: str) -> Finding:
    if version is not None:
        try:
            require_known(version, name)
        except InvalidInputError as error:
            return Finding("database schema", Verdict.FAIL, str(error), "start that version")
    if version == newest_version():
        return Finding("database schema", Verdict.OK, f"{version}, the newest")
    may = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
    if not connection.execute(text(may)).scalar_one():
        return Finding(
            "database schema", Verdict.FAIL, "this role may not make tables",
            "make it the owner of the database, or grant it CREATE and USAGE on its schema",
        )  # fmt: skip
    if version is None:
        return Finding("database schema", Verdict.OK, "none yet; the first start makes it")
    said = f"{version}; the next start brings it to {newest_version()}"
    return Finding("database schema", Verdict.WARN, said, "run pg_dump before that start")


def _alone(connection: Connection) -> Finding:
    holder = sole_holder(connection)
    if holder is not None:
        remedy = "nothing, if that is the service you mean"
        return Finding("database service", Verdict.WARN, f"{holder} works on it", remedy)
    return Finding("database service", Verdict.OK, "none works on it")


def _shown(connection: Connection, setting: str) -> str:
    return connection.execute(text("SELECT current_setting(:name)"), {"name": setting}).scalar_one()
