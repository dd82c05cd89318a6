"""Every released schema becomes the newest one with all its rows, or stays what it was."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ckptmerge.errors import InvalidInputError
from ckptmerge.storage.migrations.apply import _migrations, newest_version
from ckptmerge.storage.postgres import PostgresStore
from ckptmerge.storage.records import RECORDS
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.storage.store import Store
from tests.integration.postgres_server import PostgresServer
from tests.integration.released import (
    VERSIONS,
    Rows,
    rows_of,
    say_version,
    version_of,
    write_postgres,
    write_sqlite,
)

OLDEST = VERSIONS[0]


class Released:
    """A database of an older version, of either kind."""

    def __init__(self, kind: str, where: str, *, version: str, scratch: Path) -> None:
        self.kind = kind
        self.where = where
        if kind == "sqlite":
            self.url = f"sqlite:///{where}"
            write_sqlite(version, Path(where))
        else:
            self.url = where
            write_postgres(version, where, scratch)

    def open(self) -> Store:
        return PostgresStore(self.where) if self.kind == "postgres" else SqliteStore(
            Path(self.where)
        )  # fmt: skip

    def open_and_die(self, point: int | str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.integration.killed_upgrade"]
        return subprocess.run(
            [*command, self.kind, self.where, str(point)], capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip


@pytest.fixture(params=["sqlite", "postgres"])
def released(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Released]:
    """Makes databases of older versions, each in a place of its own."""

    def make(version: str) -> Released:
        if request.param == "sqlite":
            where = str(tmp_path / "s.sqlite")
            Path(where).unlink(missing_ok=True)
        else:
            server: PostgresServer = request.getfixturevalue("postgres_server")
            where = server.create_database()
        return Released(request.param, where, version=version, scratch=tmp_path)

    return make


def test_every_version_of_the_schema_has_its_database_here() -> None:
    _, script = _migrations()
    assert {revision.revision for revision in script.walk_revisions()} == set(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_released_schema_is_brought_up_to_date_with_all_it_held(
    version: str, released: Callable[[str], Released]
) -> None:
    database = released(version)
    before = rows_of(database.url)
    assert sum(map(len, before.values())) > 30
    store = database.open()
    with store.read() as snapshot:
        read = {name: snapshot.find(kind) for name, kind in RECORDS.items()}
    store.close()
    assert version_of(database.url) == newest_version()
    assert {name: rows for name, rows in rows_of(database.url).items() if name in before} == before
    for name, rows in before.items():
        assert [getattr(record, RECORDS[name].KEY) for record in read[name]] == [
            row["key"] for row in rows
        ]
        for record, row in zip(read[name], rows, strict=True):
            assert_holds(as_json(record), json.loads(str(row["body"])))


def as_json(record: Any) -> Any:
    return json.loads(TypeAdapter(type(record)).dump_json(record))


def assert_holds(now: Any, then: Any) -> None:
    """Check that what was written then is what is read now; fields may have been added."""
    if isinstance(then, dict):
        assert isinstance(now, dict)
        assert then.keys() <= now.keys()
        for name, value in then.items():
            assert_holds(now[name], value)
    elif isinstance(then, list):
        assert len(now) == len(then)
        for one, other in zip(now, then, strict=True):
            assert_holds(one, other)
    else:
        assert now == then


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_a_sqlite_database_is_copied_aside_before_it_is_changed(
    version: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.sqlite"
    write_sqlite(version, path)
    before = rows_of(f"sqlite:///{path}")
    SqliteStore(path).close()
    copy = f"sqlite:///{path}.before-{version}"
    assert (rows_of(copy), version_of(copy)) == (before, version)
    assert not list(tmp_path.glob("*.partial"))


def test_of_a_new_database_no_copy_is_made(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "s.sqlite").close()
    SqliteStore(tmp_path / "s.sqlite").close()
    assert [path.name for path in tmp_path.iterdir()] == ["s.sqlite"]


def test_a_kill_in_the_middle_leaves_the_old_schema_whole_and_the_next_start_goes_through(
    released: Callable[[str], Released],
) -> None:
    counted = released(OLDEST).open_and_die(0)
    assert counted.returncode == 0, counted.stderr
    statements = int(counted.stdout)
    assert statements > 10
    points: list[int | str] = [2, statements // 2, 3 * statements // 4, statements]
    seen: set[str | None] = set()
    for point in (*points, "aside"):
        database = released(OLDEST)
        if point == "aside" and database.kind == "postgres":
            continue
        before = rows_of(database.url)
        died = database.open_and_die(point)
        assert died.returncode == -signal.SIGKILL, died.stderr
        seen.add(version_of(database.url))
        assert version_of(database.url) in {OLDEST, newest_version()}, "never in between"
        assert_kept(rows_of(database.url), before)
        database.open().close()
        assert version_of(database.url) == newest_version()
        assert_kept(rows_of(database.url), before)
    assert OLDEST in seen, "every kill came too late"


def assert_kept(now: Rows, before: Rows) -> None:
    assert {name: rows for name, rows in now.items() if name in before} == before


def test_a_newer_schema_is_left_alone(released: Callable[[str], Released]) -> None:
    database = released(VERSIONS[-1])
    database.open().close()
    say_version(database.url, "9999")
    before = rows_of(database.url)
    with pytest.raises(InvalidInputError, match="newer"):
        database.open()
    assert rows_of(database.url) == before
    assert version_of(database.url) == "9999"
