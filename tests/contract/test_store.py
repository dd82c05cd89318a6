"""What every store must do, whatever it keeps its records in."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.run import Era, Run
from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.records import BlobRecord, CheckpointRecord, EventRecord, RunRecord
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.storage.store import Snapshot, Store, Unit

MAKERS: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _path: MemoryStore(),
    "sqlite": lambda path: SqliteStore(path / "store.sqlite"),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = MAKERS[request.param](tmp_path)
    yield made
    made.close()


def event(number: int, run: str = "r") -> EventRecord:
    return EventRecord(
        id=f"v_{number:04}", run=run, kind="seen", data={"n": number, "x": 0.1}, created=1.5
    )


def fill(store: Store, numbers: range, run: str = "r") -> None:
    with store.write() as unit:
        for number in numbers:
            unit.insert(event(number, run))


def keys(found: list[EventRecord]) -> list[int]:
    return [int(record.data["n"]) for record in found]


def test_it_has_the_shape_of_a_store(store: Store) -> None:
    assert isinstance(store, Store)
    with store.read() as snapshot, store.write() as unit:
        assert isinstance(snapshot, Snapshot)
        assert isinstance(unit, Unit)


def test_a_record_comes_back_as_it_went_in(store: Store) -> None:
    era = Era(Digest.of_bytes(b"set"), 3)
    record = RunRecord(
        name="r", run=Run("r", era), held_out="default", study={"budget": 24}, created=0.1 + 0.2
    )
    with store.write() as unit:
        unit.insert(record)
    with store.read() as snapshot:
        assert snapshot.get(RunRecord, "r") == record
        assert snapshot.get(RunRecord, "other") is None


def test_records_come_in_the_order_of_insertion_page_by_page(store: Store) -> None:
    fill(store, range(5, 10))
    fill(store, range(5))
    with store.read() as snapshot:
        everything = keys(snapshot.find(EventRecord))
        assert everything == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
        assert keys(snapshot.find(EventRecord, limit=3)) == [5, 6, 7]
        assert keys(snapshot.find(EventRecord, after="v_0007", limit=3)) == [8, 9, 0]
        assert keys(snapshot.find(EventRecord, newest_first=True, limit=2)) == [4, 3]
        assert keys(snapshot.find(EventRecord, newest_first=True, after="v_0003")) == [
            2, 1, 0, 9, 8, 7, 6, 5,
        ]  # fmt: skip
        assert snapshot.find(EventRecord, after="v_9999") == []


def test_an_update_keeps_the_place_of_a_record(store: Store) -> None:
    fill(store, range(3))
    with store.write() as unit:
        unit.update(replace(event(0), kind="changed"))
    with store.read() as snapshot:
        assert keys(snapshot.find(EventRecord)) == [0, 1, 2]
        changed = snapshot.get(EventRecord, "v_0000")
        assert changed is not None
        assert changed.kind == "changed"


def test_records_are_found_and_counted_by_indexed_fields_alone(store: Store) -> None:
    fill(store, range(3), "a")
    fill(store, range(3, 5), "b")
    with store.read() as snapshot:
        assert keys(snapshot.find(EventRecord, run="b")) == [3, 4]
        assert snapshot.count(EventRecord, run="a") == 3
        assert snapshot.count(EventRecord) == 5
        assert snapshot.count(CheckpointRecord, run="a", step=1) == 0
        with pytest.raises(ValueError, match="looked up by"):
            snapshot.find(EventRecord, kind="seen")
        with pytest.raises(ValueError, match="looked up by"):
            snapshot.count(EventRecord, kind="seen")


def test_a_unit_sees_what_it_has_changed(store: Store) -> None:
    with store.write() as unit:
        unit.insert(event(1))
        assert unit.count(EventRecord) == 1
        unit.delete(EventRecord, "v_0001")
        unit.delete(EventRecord, "v_0001")
        assert unit.get(EventRecord, "v_0001") is None


def test_a_unit_that_raises_changes_nothing(store: Store) -> None:
    fill(store, range(1))

    def broken() -> None:
        with store.write() as unit:
            unit.insert(event(1))
            unit.update(replace(event(0), kind="changed"))
            unit.delete(EventRecord, "v_0000")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    with store.read() as snapshot:
        assert snapshot.find(EventRecord) == [event(0)]
    fill(store, range(1, 2))
    with store.read() as snapshot:
        assert keys(snapshot.find(EventRecord)) == [0, 1]


def test_a_snapshot_does_not_see_what_is_written_meanwhile(store: Store) -> None:
    fill(store, range(1))
    with store.read() as snapshot:
        assert snapshot.count(EventRecord) == 1
        fill(store, range(1, 2))
        assert snapshot.count(EventRecord) == 1
    with store.read() as snapshot:
        assert snapshot.count(EventRecord) == 2


def test_a_key_stands_once(store: Store) -> None:
    fill(store, range(1))

    def again() -> None:
        with store.write() as unit:
            unit.insert(event(0))

    def missing() -> None:
        with store.write() as unit:
            unit.update(event(1))

    with pytest.raises(ValueError, match="exists"):
        again()
    with pytest.raises(ValueError, match="does not exist"):
        missing()


def test_writers_on_many_threads_lose_nothing(store: Store) -> None:
    with store.write() as unit:
        unit.insert(BlobRecord(hex="n", size=0, created=0.0))

    def add() -> None:
        for _ in range(25):
            with store.write() as unit:
                record = unit.get(BlobRecord, "n")
                assert record is not None
                unit.update(replace(record, size=record.size + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as snapshot:
        record = snapshot.get(BlobRecord, "n")
        assert record is not None
        assert record.size == 100
