"""Databases as released versions have left them, in SQLite and in PostgreSQL."""

from pathlib import Path

from alembic import command
from sqlalchemy import Engine, MetaData, create_engine, insert, select, text

from ckptmerge.storage.migrations import apply
from ckptmerge.storage.postgres_url import parsed
from ckptmerge.storage.records import RECORDS
from ckptmerge.storage.sqlite import sqlite_driver

SCHEMAS = Path(__file__).parents[1] / "unit" / "storage" / "schemas"
VERSIONS = tuple(sorted(path.stem for path in SCHEMAS.glob("*.sql")))

Rows = dict[str, list[dict[str, object]]]
"""Of each table, in order of insertion."""


def write_sqlite(version: str, path: Path) -> None:
    """Make the SQLite database of a version, with its rows."""
    connection = sqlite_driver().connect(str(path))
    connection.executescript((SCHEMAS / f"{version}.sql").read_text("utf-8"))
    connection.close()


def write_postgres(version: str, url: str, scratch: Path) -> None:
    """Make the same in an empty PostgreSQL database, by the migrations up to that version."""
    source = scratch / f"source-{version}.sqlite"
    if not source.exists():
        write_sqlite(version, source)
    rows = rows_of(f"sqlite:///{source}")
    engine = create_engine(parsed(url))
    with engine.begin() as connection:
        config, _ = apply._migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        known = MetaData()
        known.reflect(connection)
        for name, held in rows.items():
            for row in held:
                connection.execute(insert(known.tables[name]).values(row))
    engine.dispose()


def rows_of(url: str) -> Rows:
    """Return every row of every table that holds records, as it stands, without its number."""
    engine = _engine(url)
    known = MetaData()
    known.reflect(engine, only=lambda name, _: name in RECORDS)
    with engine.connect() as connection:
        found = {
            name: [
                {column: value for column, value in row.items() if column != "seq"}
                for row in connection.execute(select(table).order_by(table.c.seq)).mappings()
            ]
            for name, table in known.tables.items()
        }
    engine.dispose()
    return found


def version_of(url: str) -> str | None:
    """Return the schema that a database has."""
    engine = _engine(url)
    try:
        return apply.schema_version(engine)
    finally:
        engine.dispose()


def say_version(url: str, version: str) -> None:
    """Let a database say that it has a schema, whatever it has."""
    engine = _engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})
    engine.dispose()


def _engine(url: str) -> Engine:
    return create_engine(url if url.startswith("sqlite") else parsed(url))
