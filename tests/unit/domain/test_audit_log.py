"""The audit log: what was written once cannot be changed without its being seen."""

from dataclasses import replace
from typing import Any

import pytest

from ckptmerge.domain.audit_log import Act, Actor, Entry, first_break


def log(count: int = 5) -> list[Entry]:
    entries: list[Entry] = []
    for number in range(count):
        act = Act(
            actor=Actor("k_1", f"request-{number}"), action="change-run", object="runs/a",
            detail={"size": number}, at=number + 0.1,
        )  # fmt: skip
        entries.append(Entry.after(entries[-1] if entries else None, act))
    return entries


def altered(entry: Entry, **changes: Any) -> Entry:
    return replace(entry, act=replace(entry.act, **changes))


def test_a_log_as_it_was_written_is_whole() -> None:
    assert first_break([]) is None
    assert first_break(log()) is None
    assert [entry.number for entry in log()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": Actor("k_2", "request-2")}, {"actor": Actor("k_1", "request-3")},
        {"action": "pin-best"}, {"object": "runs/b"}, {"detail": {"size": 9}}, {"at": 2.2},
    ],
)  # fmt: skip
def test_whatever_is_changed_of_an_entry_is_seen(changes: dict[str, Any]) -> None:
    entries = log()
    entries[2] = altered(entries[2], **changes)
    assert first_break(entries) == 3


def test_an_entry_that_was_changed_and_given_a_new_digest_breaks_the_next_one() -> None:
    entries = log()
    entries[2] = Entry.after(entries[1], replace(entries[2].act, object="runs/b"))
    assert first_break(entries) == 4


@pytest.mark.parametrize("place", range(4))
def test_an_entry_that_is_left_out_is_missed(place: int) -> None:
    entries = log()
    del entries[place]
    assert first_break(entries) == place + 1


def test_entries_that_change_places_are_seen() -> None:
    entries = log()
    entries[1], entries[2] = entries[2], entries[1]
    assert first_break(entries) == 2


def test_an_entry_that_is_put_in_is_seen() -> None:
    entries = log()
    entries.insert(3, Entry.after(entries[2], entries[0].act))
    assert first_break(entries) == 5
