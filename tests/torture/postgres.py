"""A PostgreSQL server that crashes under writers, and upgrades that are killed half-way."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from ckptmerge.errors import StoreTakenError
from ckptmerge.storage import postgres_session
from ckptmerge.storage.migrations.apply import newest_version
from ckptmerge.storage.postgres import PostgresStore
from ckptmerge.storage.records import BlobRecord
from ckptmerge.storage.sqlite import SqliteStore
from tests.integration.postgres_server import NoServerError, PostgresServer, postgres_running
from tests.integration.released import VERSIONS, rows_of, version_of, write_postgres, write_sqlite
from tests.torture.finding import CannotTryError, Finding, Scale
from tests.torture.restless_writers import RestlessWriters, record

AREA = "postgres"

READY_WITHIN = 10.0
REFUSED_WITHIN = 2.0
"""Seconds."""

_SYNC = "synchronous_commit = on"


def torture(scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Crash the server under writers, take its guards away, and kill upgrades at every statement.

    Raises:
        CannotTryError: PostgreSQL is not installed.
    """
    try:
        with postgres_running() as server:
            yield from _crash(server, rounds=scale.pick(short=3, full=20))
            yield _second_service(server)
            yield _lost_without_sync(server)
            yield _missed_without_turns(server)
            points = scale.pick(short=3, full=1000)
            yield _killed_upgrades("PostgreSQL", server, scratch, at_most=points)
            yield _killed_upgrades("SQLite", None, scratch, at_most=points)
    except NoServerError as reason:
        raise CannotTryError(str(reason)) from reason


def _crash(server: PostgresServer, *, rounds: int) -> Iterator[Finding]:
    store = PostgresStore(server.create_database(), sole=True)
    slowest = 0.0
    with RestlessWriters(store) as writers:
        for _ in range(rounds):
            writers.wait_for_more()
            begin = time.perf_counter()
            server.restart("immediate")
            writers.wait_for_more(1)
            slowest = max(slowest, time.perf_counter() - begin)
    with store.read() as snapshot:
        there = [each.hex for each in snapshot.find(BlobRecord)]
    store.close()
    lost = len(set(writers.acknowledged) - set(there))
    missed = len(set(there) - set(writers.seen))
    yield Finding(
        area=AREA,
        promise=f"0 acknowledged records lost in {rounds} crashes of PostgreSQL under writers",
        figure=f"{lost} of {len(writers.acknowledged):,} lost; {writers.refused} refused meanwhile",
        held=not lost and writers.refused > 0,
    )
    yield Finding(
        area=AREA,
        promise=f"writes go on within {READY_WITHIN:.0f} s of a crash, without a restart of ours",
        figure=f"{slowest:.1f} s at most",
        held=slowest <= READY_WITHIN,
    )
    yield Finding(
        area=AREA,
        promise="0 records missed by a reader who goes on from the last one it saw",
        figure=f"{missed} of {len(there):,} missed",
        held=not missed and writers.seen == there,
    )


def _second_service(server: PostgresServer) -> Finding:
    url = server.create_database()
    first = PostgresStore(url, sole=True)
    begin = time.perf_counter()
    try:
        PostgresStore(url, sole=True).close()
        refused = False
    except StoreTakenError:
        refused = True
    took = time.perf_counter() - begin
    first.close()
    return Finding(
        area=AREA,
        promise=f"a second service on the database is refused within {REFUSED_WITHIN:.0f} s",
        figure=f"{'refused' if refused else 'let in'} after {took:.1f} s",
        held=refused and took <= REFUSED_WITHIN,
    )


def _lost_without_sync(server: PostgresServer) -> Finding:
    """Crash with commits that are acknowledged before they are on the disk."""
    server.sql("ALTER SYSTEM SET wal_writer_delay = '10s'")
    server.restart("fast")
    settings = [s.replace(_SYNC, "synchronous_commit = off") for s in _write_settings()]
    with patch.object(postgres_session, "WRITE_SETTINGS", settings):
        store = PostgresStore(server.create_database())
        for number in range(100):
            with store.write() as unit:
                unit.insert(record(f"{number:03}"))
        server.restart("immediate")
        with store.read() as snapshot:
            lost = 100 - snapshot.count(BlobRecord)
        store.close()
    return Finding(
        area=AREA,
        promise="control: with synchronous_commit off, acknowledged records are lost",
        figure=f"{lost} of 100 lost",
        held=lost > 0,
    )


def _write_settings() -> tuple[str, ...]:
    assert _SYNC in postgres_session.WRITE_SETTINGS, "the control takes away what is not there"
    return postgres_session.WRITE_SETTINGS


def _missed_without_turns(server: PostgresServer) -> Finding:
    """Let two write at once: the later number is seen before the earlier one."""
    url = server.create_database()
    PostgresStore(url).close()
    with patch.object(postgres_session, "_take_turn", lambda _connection: None):
        one, two = PostgresStore(url), PostgresStore(url)
    seen: list[str] = []
    with one.write() as unit:
        unit.insert(record("early"))
        with two.write() as other:
            other.insert(record("late"))
        seen += _after(two, None)
    seen += _after(two, seen[-1])
    one.close()
    two.close()
    return Finding(
        area=AREA,
        promise="control: without the writers' lock, a reader misses a record",
        figure=f"{2 - len(seen)} of 2 missed",
        held=seen == ["late"],
    )


def _after(store: PostgresStore, last: str | None) -> list[str]:
    with store.read() as snapshot:
        return [each.hex for each in snapshot.find(BlobRecord, after=last)]


def _killed_upgrades(
    kind: str, server: PostgresServer | None, scratch: Path, *, at_most: int
) -> Finding:
    """Kill an upgrade of the oldest schema after each of its statements, and start again."""
    path = scratch / "upgraded.sqlite"
    statements = int(_open(path, server, scratch, "0")[0].stdout)
    points = range(1, statements + 1, max(1, -(-statements // at_most)))
    broken, undone = [], 0
    for point in points:
        died, url, before = _open(path, server, scratch, str(point))
        half = version_of(url)
        undone += half == VERSIONS[0]
        _reopen(url, path)
        now = {name: rows for name, rows in rows_of(url).items() if name in before}
        whole = now == before and version_of(url) == newest_version()
        ended = died.returncode == -signal.SIGKILL and half in {VERSIONS[0], newest_version()}
        if not (ended and whole):
            broken.append(point)
    return Finding(
        area=AREA,
        promise=f"{kind}: 0 upgrades damaged by kill -9 in {len(points)} places",
        figure=f"{len(broken)} damaged; {undone} undone whole, and done at the next start",
        held=not broken and undone > 0,
    )


def _open(
    path: Path, server: PostgresServer | None, scratch: Path, point: str
) -> tuple[subprocess.CompletedProcess[str], str, dict[str, list[dict[str, object]]]]:
    """Open a new database of the oldest version in a process that dies at a point."""
    if server is None:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        write_sqlite(VERSIONS[0], path)
        kind, where, url = "sqlite", str(path), f"sqlite:///{path}"
    else:
        kind, where = "postgres", server.create_database()
        url = where
        write_postgres(VERSIONS[0], where, scratch)
    before = rows_of(url)
    command = [sys.executable, "-m", "tests.integration.killed_upgrade", kind, where, point]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return ran, url, before


def _reopen(url: str, path: Path) -> None:
    (SqliteStore(path) if url.startswith("sqlite") else PostgresStore(url)).close()
