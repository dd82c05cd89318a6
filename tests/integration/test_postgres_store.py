"""The PostgreSQL store: one service, one writer, durable settings, and lost connections."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from threading import Event, Thread

import pytest
from sqlalchemy import MetaData, inspect

from ckptmerge.errors import InvalidInputError, StoreTakenError, StoreUnavailableError
from ckptmerge.storage import postgres, postgres_session
from ckptmerge.storage.postgres import PostgresStore, looking_at
from ckptmerge.storage.records import RECORDS, BlobRecord
from ckptmerge.storage.schema import tables
from tests.e2e.running import wait_for
from tests.integration.postgres_server import PostgresServer


def blob(name: str) -> BlobRecord:
    return BlobRecord(hex=name, size=1, created=0.0)


def add(store: PostgresStore, name: str) -> None:
    with store.write() as unit:
        unit.insert(blob(name))


def names(store: PostgresStore) -> list[str]:
    with store.read() as snapshot:
        return [record.hex for record in snapshot.find(BlobRecord)]


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(postgres_url, sole=True)
    yield opened
    opened.close()


def test_the_settings_are_those_that_survive_the_loss_of_power(store: PostgresStore) -> None:
    with store._writing.begin() as connection:
        said = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("synchronous_commit", "transaction_isolation", "statement_timeout",
                         "idle_in_transaction_session_timeout")
        }  # fmt: skip
    assert said == {
        "synchronous_commit": "on", "transaction_isolation": "read committed",
        "statement_timeout": "30s", "idle_in_transaction_session_timeout": "1min",
    }  # fmt: skip


def test_readers_look_at_one_moment_and_cannot_write(store: PostgresStore) -> None:
    with store._reading.begin() as connection:
        level = connection.exec_driver_sql("SHOW transaction_isolation").scalar()
        assert level == "repeatable read"
        with pytest.raises(Exception, match="read-only"):
            connection.exec_driver_sql("DELETE FROM blobs")


def test_the_migrations_make_the_tables_that_the_code_uses(store: PostgresStore) -> None:
    made = inspect(store._writing)
    assert set(made.get_table_names()) == {*RECORDS, "alembic_version", "ckptmerge_identity"}
    for name, table in tables(MetaData()).items():
        columns = {column["name"]: str(column["type"]) for column in made.get_columns(name)}
        assert columns == {
            column.name: str(column.type.compile(store._writing.dialect))
            for column in table.columns
        }
        assert {i["name"] for i in made.get_indexes(name) if not i["unique"]} == {
            i.name for i in table.indexes
        }


def test_a_second_service_is_refused_and_told_who_is_there(
    store: PostgresStore, postgres_url: str
) -> None:
    with pytest.raises(StoreTakenError, match=r"already served by ckptmerge, process \d+ on"):
        PostgresStore(postgres_url, sole=True)
    add(store, "a")
    store.close()
    PostgresStore(postgres_url, sole=True).close()


def test_databases_of_one_server_do_not_keep_each_other_out(
    store: PostgresStore, postgres_server: PostgresServer
) -> None:
    other = PostgresStore(postgres_server.create_database(), sole=True)
    assert other.identity != store.identity
    other.close()


def test_a_connection_that_was_lost_while_nobody_used_it_is_not_noticed(
    store: PostgresStore, postgres_server: PostgresServer, postgres_url: str
) -> None:
    add(store, "a")
    postgres_server.hang_up(postgres_url)
    assert names(store) == ["a"]
    add(store, "b")
    assert names(store) == ["a", "b"]


def test_a_connection_lost_in_the_middle_fails_the_unit_and_not_the_next_one(
    store: PostgresStore, postgres_server: PostgresServer, postgres_url: str
) -> None:
    def broken() -> None:
        with store.write() as unit:
            unit.insert(blob("a"))
            postgres_server.hang_up(postgres_url)
            unit.insert(blob("b"))

    with pytest.raises(StoreUnavailableError, match="recorded or not: ask again"):
        broken()
    add(store, "c")
    assert names(store) == ["c"]


def test_the_connection_that_was_lost_takes_the_lock_with_it(
    store: PostgresStore, postgres_server: PostgresServer, postgres_url: str
) -> None:
    add(store, "a")
    postgres_server.hang_up(postgres_url)
    second = PostgresStore(postgres_url, sole=True)
    with pytest.raises(StoreTakenError):
        add(store, "mine")
    add(second, "b")
    second.close()
    add(store, "c")
    assert names(store) == ["a", "b", "c"]


def test_a_server_that_is_away_is_named_and_found_again(
    store: PostgresStore, postgres_server: PostgresServer
) -> None:
    postgres_server.stop()
    try:
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            add(store, "a")
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            names(store)
    finally:
        postgres_server.start()
    add(store, "b")
    assert names(store) == ["b"]


def test_nobody_else_writes_within_a_unit_whatever_process_they_are_in(
    store: PostgresStore, postgres_server: PostgresServer, postgres_url: str
) -> None:
    other = PostgresStore(postgres_url)
    entered = Event()

    def write() -> None:
        with other.write() as unit:
            entered.set()
            unit.insert(blob("second"))

    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    thread = Thread(target=write)
    with store.write() as unit:
        thread.start()
        wait_for(lambda: postgres_server.sql(waiting) == "1", 10)
        assert not entered.is_set()
        unit.insert(blob("first"))
    thread.join()
    assert names(store) == ["first", "second"]
    other.close()


def test_rows_are_seen_in_the_order_of_their_numbers(
    store: PostgresStore, postgres_url: str
) -> None:
    """Who reads on from the last row that was seen misses none, however many write."""
    others = [PostgresStore(postgres_url) for _ in range(3)]

    def write(number: int) -> None:
        for each in range(20):
            add(others[number], f"{number}-{each}")

    threads = [Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    seen: list[str] = []
    writing = True
    while writing:
        writing = any(thread.is_alive() for thread in threads)
        with store.read() as snapshot:
            last = seen[-1] if seen else None
            seen += [record.hex for record in snapshot.find(BlobRecord, after=last)]
    assert len(seen) == 60
    assert seen == names(store)
    for other in others:
        other.close()


def test_a_server_that_is_too_old_is_refused(postgres_url: str, monkeypatch) -> None:
    monkeypatch.setattr(postgres, "OLDEST_VERSION", 99)
    with pytest.raises(InvalidInputError, match="99 or newer is needed"):
        PostgresStore(postgres_url)


def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: PostgresServer) -> None:
    latin = postgres_server.create_database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(InvalidInputError, match="ENCODING 'UTF8'"):
        PostgresStore(latin)


def test_a_role_that_may_not_make_tables_is_told_what_it_lacks(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with suppress(AssertionError):
        postgres_server.sql("CREATE ROLE poor LOGIN")
    postgres_server.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC", url=postgres_url)
    with pytest.raises(InvalidInputError, match="grant it CREATE"):
        PostgresStore(postgres_url.replace("tester", "poor"))


def test_what_is_no_address_is_refused_without_being_repeated() -> None:
    for wrong in ("mysql://me:secret@host/db", "postgresql://me:secret@host", "secret"):
        with pytest.raises(InvalidInputError) as refused:
            PostgresStore(wrong)
        assert "secret" not in f"{refused.value} {refused.value.__cause__}"


def test_looking_changes_nothing(
    store: PostgresStore, postgres_server: PostgresServer, postgres_url: str
) -> None:
    add(store, "a")
    before = postgres_server.dump(postgres_url)
    with looking_at(postgres_url) as (identity, snapshot):
        assert identity == store.identity
        assert snapshot.get(BlobRecord, "a") == blob("a")
    assert normal(postgres_server.dump(postgres_url)) == normal(before)
    empty = postgres_server.create_database()
    with pytest.raises(Exception, match="holds no records"), looking_at(empty):
        pass
    assert "CREATE TABLE" not in postgres_server.dump(empty)


def normal(dump: str) -> str:
    """Leave out the token that newer versions of pg_dump make anew each time."""
    return "\n".join(line for line in dump.splitlines() if "restrict" not in line)


def test_a_dump_that_is_restored_is_the_same_database(
    store: PostgresStore, postgres_server: PostgresServer, postgres_url: str
) -> None:
    for name in "abc":
        add(store, name)
    store.close()
    again = postgres_server.create_database()
    postgres_server.restore(postgres_server.dump(postgres_url), again)
    restored = PostgresStore(again)
    assert restored.identity == store.identity
    add(restored, "d")
    assert names(restored) == ["a", "b", "c", "d"]
    with restored.write() as unit:
        unit.update(replace(blob("a"), size=9))
    restored.close()


def test_a_reader_that_gets_no_connection_is_told_so(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_session, "_READERS", 5)
    store = PostgresStore(postgres_url)
    store._reading.pool._timeout = 0.01
    with ExitStack() as reading:
        for _ in range(5):
            reading.enter_context(store.read())
        with pytest.raises(StoreUnavailableError, match="QueuePool"):
            names(store)
    store.close()
