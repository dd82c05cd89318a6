"""A service whose records are in PostgreSQL: the same studies, restarts, and its own folder."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from ckptmerge.cli.main import run
from ckptmerge.domain.study import StudyState
from ckptmerge.errors import InvalidInputError, RefusedError
from ckptmerge.storage import postgres_session
from ckptmerge.storage.blobs import put
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.postgres import PostgresStore
from ckptmerge.storage.records import AlphaRecord, RunRecord, StudyRecord
from ckptmerge.storage.store import Store
from ckptmerge.workflow.blob_records import put_on_record
from service.data_folder import BLOBS, DATABASE
from service.database import MARK, VARIABLE, open_records
from service.operation.backup import back_up
from service.operation.doctor import examine
from service.operation.findings import Finding, Verdict
from service.operation.look_at_database import look_at_database
from service.operation.scrub import scrub
from service.operation.stored import place_of
from service.settings import ConfigurationError, Settings
from tests.integration.postgres_server import PostgresServer
from tests.integration.released import say_version
from tests.unit.workflow.conducted import World

NOW = 1_800_000_000.0


def judge(world: World, open_again: Callable[[], Store] | None = None) -> StudyRecord:
    """Search a window to its end; the records are opened again after every step if they can be."""
    world.arrive(100)
    world.arrive(200)
    for _ in range(200):
        if open_again is not None:
            world.store.close()
            world.store = open_again()
        study = world.studies()[-1]
        if study.state not in {StudyState.SEARCHING, StudyState.FROZEN}:
            return study
        world.conductor.advance(study.id)
        leased = world.lease()
        if leased is not None:
            world.finish(leased, world.work(leased.task))
    raise AssertionError("it never ends")


def test_a_study_comes_to_the_same_on_every_store_however_often_it_is_opened_again(
    stores: Callable[[], Store],
) -> None:
    undisturbed = World()
    judge(undisturbed)
    world = World(store=stores())
    judge(world, stores)
    for kind in (RunRecord, StudyRecord, AlphaRecord):
        assert world.all(kind) == undisturbed.all(kind)
    assert world.all(RunRecord)[0].best is not None


@pytest.fixture
def settings(tmp_path: Path, postgres_url: str) -> Settings:
    (tmp_path / "data").mkdir()
    return Settings(data=tmp_path / "data", database=postgres_url)


@pytest.fixture
def served(settings: Settings) -> Iterator[PostgresStore]:
    store = open_records(settings)
    assert isinstance(store, PostgresStore)
    yield store
    store.close()


def keep(settings: Settings, store: Store, content: bytes) -> Path:
    """Put bytes on record, and return where they lie."""
    folder = settings.data / BLOBS
    blobs = FolderBlobStore(folder, reserve=0)
    digest = put(blobs, content)
    with store.write() as unit:
        put_on_record(unit, blobs, digest, now=NOW, lasting=True)
    blobs.close()
    return place_of(folder, digest.hex)


@pytest.mark.usefixtures("served")
def test_a_second_service_on_the_database_will_not_start(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigurationError, match="already served by ckptmerge, process"):
        open_records(settings.model_copy(update={"data": tmp_path / "other"}))
    assert not (tmp_path / "other" / MARK).exists()


def test_files_never_come_under_the_records_of_another_database(
    settings: Settings, served: PostgresStore, postgres_server: PostgresServer
) -> None:
    keep(settings, served, b"weights")
    other = postgres_server.create_database()
    with pytest.raises(ConfigurationError, match="not the database that the files in"):
        open_records(settings.model_copy(update={"database": other}))
    with pytest.raises(ConfigurationError, match=VARIABLE):
        open_records(settings.model_copy(update={"database": None}))
    served.close()
    open_records(settings).close()


def test_a_folder_without_files_may_change_its_database(
    settings: Settings, served: PostgresStore, postgres_server: PostgresServer
) -> None:
    other = open_records(
        settings.model_copy(update={"database": postgres_server.create_database()})
    )
    assert (settings.data / MARK).read_text().strip() == other.identity != served.identity
    other.close()


def test_records_in_sqlite_are_not_left_behind(settings: Settings) -> None:
    open_records(settings.model_copy(update={"database": None})).close()
    with pytest.raises(ConfigurationError, match=f"are in its {DATABASE}"):
        open_records(settings)


def test_a_database_that_cannot_be_used_is_a_matter_of_configuration(
    settings: Settings, postgres_server: PostgresServer
) -> None:
    latin = postgres_server.create_database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ConfigurationError, match="UTF8"):
        open_records(settings.model_copy(update={"database": latin}))


def test_a_backup_is_left_to_those_who_can_make_one(
    settings: Settings, served: PostgresStore, tmp_path: Path
) -> None:
    keep(settings, served, b"weights")
    with pytest.raises(RefusedError, match="pg_dump first and copy the folder second"):
        back_up(settings.data, tmp_path / "backup", now=NOW)
    with pytest.raises(RefusedError, match="pg_dump"):
        scrub(settings.data)
    assert not (tmp_path / "backup").exists()


def test_scrub_finds_a_flipped_byte_by_the_records_in_postgresql(
    settings: Settings, served: PostgresStore
) -> None:
    place = keep(settings, served, b"weights")
    found = scrub(settings.data, database=settings.database)
    assert (found.blobs, found.wrong) == (1, ())
    place.chmod(0o600)
    place.write_bytes(b"weighty")
    found = scrub(settings.data, database=settings.database)
    assert [each.what for each in found.wrong] == ["damaged"]


def test_scrub_does_not_judge_files_by_another_databases_records(
    settings: Settings, served: PostgresStore, postgres_server: PostgresServer
) -> None:
    keep(settings, served, b"weights")
    other = postgres_server.create_database()
    PostgresStore(other).close()
    with pytest.raises(RefusedError, match="not the database"):
        scrub(settings.data, database=other)


@pytest.mark.usefixtures("served")
def test_scrub_does_not_bring_another_versions_schema_up_to_date(settings: Settings) -> None:
    say_version(str(settings.database), "0003")
    with pytest.raises(InvalidInputError, match="older version"):
        scrub(settings.data, database=settings.database)


def found(url: str | None) -> dict[str, Finding]:
    return {finding.name: finding for finding in look_at_database(url)}


def test_the_doctor_looks_at_the_database(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(None)["database"].verdict is Verdict.OK
    new = found(postgres_url)
    assert {finding.verdict for finding in new.values()} == {Verdict.OK}
    assert "first start makes it" in new["database schema"].said
    store = PostgresStore(postgres_url, sole=True)
    there = found(postgres_url)
    assert there["database service"].verdict is Verdict.WARN
    assert "ckptmerge, process" in there["database service"].said
    store.close()
    say_version(postgres_url, "0003")
    assert found(postgres_url)["database schema"].verdict is Verdict.WARN
    say_version(postgres_url, "9999")
    assert found(postgres_url)["database schema"].verdict is Verdict.FAIL
    monkeypatch.setattr("service.operation.look_at_database.OLDEST_VERSION", 99)
    assert found(postgres_url)["database"].verdict is Verdict.FAIL


def test_the_doctor_warns_of_a_server_that_forgets(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    postgres_server.sql("ALTER SYSTEM SET fsync = off")
    try:
        postgres_server.restart("fast")
        assert found(url)["database durability"].verdict is Verdict.FAIL
    finally:
        postgres_server.sql("ALTER SYSTEM RESET fsync")
        postgres_server.restart("fast")


def test_the_doctor_says_that_nobody_answers_and_repeats_no_password(tmp_path: Path) -> None:
    url = f"postgresql://me:hidden@/db?host={tmp_path}"
    findings = [
        asdict(finding)
        for finding in examine(
            environ={VARIABLE: url, "CKPTMERGE_WORKERS": "0"}, config=None,
            data=tmp_path / "data", now=NOW,
        )
    ]  # fmt: skip
    assert [f["verdict"] for f in findings if f["name"] == "database"] == [Verdict.FAIL]
    assert "does not answer" in str(findings)
    assert "hidden" not in str(findings)


@pytest.mark.usefixtures("served")
def test_serve_ends_with_the_code_of_a_refused_configuration(
    settings: Settings, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv(VARIABLE, str(settings.database))
    assert run(["serve", "--data", str(tmp_path / "second"), "--port", "0", "--workers", "0"]) == 78
    assert "already served by" in capsys.readouterr().err


def test_without_the_driver_it_says_what_to_install(postgres_url: str, monkeypatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("psycopg")

    monkeypatch.setattr(postgres_session, "create_engine", missing)
    with pytest.raises(InvalidInputError, match=r"ckptmerge\[postgres\]"):
        PostgresStore(postgres_url)
