"""What every store must do, whatever it keeps its records in."""

import math
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from ckptmerge.domain.certificate import Interval, Score
from ckptmerge.domain.checkpoint import FileEntry, Manifest
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.run import Era, Run
from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.study import StudySpec, StudyState
from ckptmerge.storage.records import (
    BlobRecord,
    CheckpointRecord,
    EventRecord,
    RunRecord,
    StudyRecord,
    Verdict,
)
from ckptmerge.storage.store import Snapshot, Store, Unit


@pytest.fixture
def store(stores: Callable[[], Store]) -> Store:
    return stores()


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


def test_a_name_that_no_database_could_hold_is_the_name_of_nothing(store: Store) -> None:
    fill(store, range(1))
    with store.write() as unit:
        assert unit.get(EventRecord, "v_\0") is None
        assert unit.find(EventRecord, run="r\0") == []
        assert unit.find(EventRecord, after="\0") == []
        assert unit.count(EventRecord, id="\0") == 0
        unit.delete(EventRecord, "\0")
        with pytest.raises(ValueError, match="does not exist"):
            unit.update(replace(event(0), id="\0"))
    with store.read() as snapshot:
        assert snapshot.count(EventRecord) == 1


def test_text_and_numbers_come_back_whatever_they_hold(store: Store) -> None:
    record = EventRecord(
        id="v_ü\U0001f600", run="r", created=5e-324,
        data={"nul": "\0", "quote": "\"'\\", "far": 2**63, "near": 0.1, "many": "é" * 100_000},
        kind="seen",
    )  # fmt: skip
    with store.write() as unit:
        unit.insert(record)
    with store.read() as snapshot:
        assert snapshot.get(EventRecord, "v_ü\U0001f600") == record


def test_a_step_may_be_as_large_as_requests_allow(store: Store) -> None:
    manifest = Manifest((FileEntry("model.safetensors", 1, Digest.of_bytes(b"m")),), ())
    record = CheckpointRecord(
        id="c", run="r", attempt=1, step=2**53, tokens=2**62, manifest=manifest,
        given=Digest.of_bytes(b"g"), created=0.0,
    )  # fmt: skip
    with store.write() as unit:
        unit.insert(record)
    with store.read() as snapshot:
        assert snapshot.find(CheckpointRecord, step=2**53) == [record]


def test_what_was_written_is_there_when_the_records_are_opened_again(
    stores: Callable[[], Store],
) -> None:
    first = stores()
    fill(first, range(3))
    first.close()
    again = stores()
    fill(again, range(3, 5))
    with again.read() as snapshot:
        assert keys(snapshot.find(EventRecord)) == [0, 1, 2, 3, 4]


def test_of_two_who_have_opened_the_records_one_writes_at_a_time(
    stores: Callable[[], Store],
) -> None:
    first, second = stores(), stores()
    with first.write() as unit:
        unit.insert(BlobRecord(hex="n", size=0, created=0.0))

    def add(store: Store) -> None:
        for _ in range(25):
            with store.write() as unit:
                record = unit.get(BlobRecord, "n")
                assert record is not None
                unit.update(replace(record, size=record.size + 1))

    threads = [threading.Thread(target=add, args=(store,)) for store in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with first.read() as snapshot:
        record = snapshot.get(BlobRecord, "n")
        assert record is not None
        assert record.size == 50


def test_an_interval_that_nothing_bounds_comes_back_as_it_went_in(store: Store) -> None:
    """A domain of one document shows no variation; JSON has no number for what follows."""
    unbounded = Score(Interval(2.5, -math.inf, math.inf), Split.AUDIT, 1)
    verdict = Verdict(best=None, weights=None, reason="too few", score=unbounded)
    record = StudyRecord(
        id="s", run="r", era=1, held_out="default", checkpoints=("c", "d"),
        spec=StudySpec(SearchSpace.pair()), state=StudyState.DECIDED, verdict=verdict, created=0.5,
    )  # fmt: skip
    with store.write() as unit:
        unit.insert(record)
    with store.read() as snapshot:
        assert snapshot.get(StudyRecord, "s") == record
