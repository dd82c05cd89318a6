"""Tidying by itself: after what may have changed something, and otherwise once in a while."""

from dataclasses import replace

import pytest

from ckptmerge.domain.retention import Retention
from ckptmerge.storage.blobs import put
from ckptmerge.storage.records import CheckpointRecord, RunRecord, WindowPolicy
from ckptmerge.workflow.blob_records import put_on_record
from service.tidying import COLLECT_EVERY, Tidying
from tests.unit.workflow.conducted import World


class House(World):
    """A world that is tidied; its clock is set by hand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.time = 1000.0
        self.free = 1000
        self.tidy = Tidying(
            self.store, self.blobs, now=lambda: self.time, new_id=self.new_id, grace=10.0,
            upload_age=10.0, free=lambda: self.free, watermark=100,
        )  # fmt: skip

    def change_run(self, **changes) -> None:
        with self.store.write() as unit:
            unit.update(replace(unit.find(RunRecord)[0], **changes))

    def removed(self) -> list[int]:
        return [c.step for c in self.all(CheckpointRecord) if c.removed is not None]

    def add_loose(self) -> None:
        with self.store.write() as unit:
            put_on_record(unit, self.blobs, put(self.blobs, b"loose"), now=0.0)


@pytest.fixture
def house() -> House:
    house = House()
    house.change_run(
        window=WindowPolicy(size=2, minimum=64), retention=Retention(keep_last=1)
    )  # fmt: skip
    for step in (10, 20, 30):
        house.arrive(step)
    return house


def test_what_was_left_undone_is_done_at_the_first_call(house: House) -> None:
    house.tidy(True)
    assert house.removed() == [10]
    assert len(list(house.blobs)) == 3


def test_nothing_is_removed_while_nothing_may_have_changed(house: House) -> None:
    house.tidy(False)
    assert house.removed() == []


def test_a_checkpoint_that_comes_sends_another_away(house: House) -> None:
    house.tidy(True)
    house.arrive(40)
    house.tidy(True)
    assert house.removed() == [10, 20]


def test_a_new_policy_alone_removes_nothing_so_it_can_be_tried_out(house: House) -> None:
    house.change_run(retention=Retention())
    house.tidy(True)
    house.change_run(retention=Retention(keep_last=1))
    house.tidy(True)
    assert house.removed() == []
    house.arrive(40)
    house.tidy(True)
    assert house.removed() == [10, 20]


def test_files_that_nobody_came_to_name_are_looked_for_once_in_a_while(house: House) -> None:
    house.tidy(True)
    house.add_loose()
    held = len(list(house.blobs))
    house.time += COLLECT_EVERY - 1
    house.tidy(True)
    assert len(list(house.blobs)) == held
    house.time += 1
    house.tidy(False)
    assert len(list(house.blobs)) == held - 1


def test_bytes_go_with_the_checkpoint_without_waiting_for_that(house: House) -> None:
    house.tidy(True)
    house.arrive(40)
    held = len(list(house.blobs))
    house.tidy(True)
    assert len(list(house.blobs)) == held - 1


def test_checkpoints_that_age_go_in_time_although_nothing_comes(house: House) -> None:
    house.change_run(retention=Retention(ttl=5000))
    house.tidy(True)
    assert house.removed() == []
    house.time += 5000
    house.tidy(False)
    assert house.removed() == [10], "the others are the window that the next study may merge"


@pytest.mark.parametrize(("free", "left"), [(100, 5), (99, 4)])
def test_on_a_disk_that_is_nearly_full_what_retention_let_go_has_no_grace(
    house: House, free: int, left: int
) -> None:
    house.time, house.free = 1.0, free
    house.add_loose()
    house.tidy(True)
    assert house.removed() == [10]
    assert len(list(house.blobs)) == left, "what nobody has named yet keeps its own in any case"
