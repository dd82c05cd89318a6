"""The SQLite store: durable settings, one schema, and no opening of what it does not know."""

import resource
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import MetaData, inspect

from ckptmerge.errors import DiskFailedError, InvalidInputError, OutOfSpaceError
from ckptmerge.storage import sqlite
from ckptmerge.storage.records import RECORDS, BlobRecord
from ckptmerge.storage.schema import tables
from ckptmerge.storage.sqlite import SqliteStore


def blob(store: SqliteStore, name: str) -> None:
    with store.write() as unit:
        unit.insert(BlobRecord(hex=name, size=1, created=0.0))


def test_records_outlive_the_store(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "s.sqlite")
    blob(first, "a")
    first.close()
    second = SqliteStore(tmp_path / "s.sqlite")
    with second.read() as snapshot:
        assert snapshot.count(BlobRecord) == 1
    second.close()


def test_the_settings_are_those_that_survive_the_loss_of_power(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.sqlite")
    said = {
        name: store._writer.exec_driver_sql(f"PRAGMA {name}").scalar()
        for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
    }
    store._writer.rollback()
    store.close()
    assert said == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0}


def test_a_full_disk_is_said_to_be_full_and_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.sqlite")
    pages = store._writer.exec_driver_sql("PRAGMA page_count").scalar()
    store._writer.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    store._writer.rollback()
    with pytest.raises(OutOfSpaceError, match="is full and nothing was recorded"):
        blob(store, "a" * 20_000)
    store._writer.exec_driver_sql(f"PRAGMA max_page_count = {2**30}")
    store._writer.rollback()
    blob(store, "b" * 20_000)
    with store.read() as snapshot:
        assert [record.hex[0] for record in snapshot.find(BlobRecord)] == ["b"]
    store.close()


def test_a_disk_that_fails_is_said_to_fail_and_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.sqlite")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow is an error of the disk to SQLite, and not a full one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(DiskFailedError, match="and nothing was recorded"):
            blob(store, "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    blob(store, "b")
    with store.read() as snapshot:
        assert [record.hex for record in snapshot.find(BlobRecord)] == ["b"]
    store.close()


def test_readers_cannot_write(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.sqlite")
    with store._reading.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM blobs")
    store.close()


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.sqlite")
    made = inspect(store._writing)
    assert set(made.get_table_names()) == {*RECORDS, "alembic_version"}
    for name, table in tables(MetaData()).items():
        assert {c["name"] for c in made.get_columns(name)} == set(table.columns.keys())
        assert {i["name"] for i in made.get_indexes(name)} == {i.name for i in table.indexes}
    store.close()


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "s.sqlite").close()
    raw = sqlite3.connect(tmp_path / "s.sqlite")
    raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.commit()
    raw.close()
    before = (tmp_path / "s.sqlite").read_bytes()
    with pytest.raises(InvalidInputError, match="newer"):
        SqliteStore(tmp_path / "s.sqlite")
    assert (tmp_path / "s.sqlite").read_bytes() == before


def test_a_sqlite_that_can_corrupt_its_log_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite, "FIRST_SAFE_VERSION", (99, 0, 0))
    with pytest.raises(InvalidInputError, match="write-ahead log"):
        SqliteStore(tmp_path / "s.sqlite")
    assert not (tmp_path / "s.sqlite").exists()
