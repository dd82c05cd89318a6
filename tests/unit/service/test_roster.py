"""The roster: who is there, who is in quarantine, and how it ends."""

import pytest

from service.roster import STRIKES, Roster


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def roster(clock: Clock) -> Roster:
    made = Roster(clock, silence=60, quarantine=600)
    for worker in ("good", "bad"):
        made.hear(worker)
    return made


def strike(roster: Roster, times: int, *, done_by: str = "good") -> list[str]:
    return [name for _ in range(times) for name in roster.done(done_by, where_failed=["bad"])]


def test_five_tasks_in_a_row_that_another_could_do_lead_to_quarantine(roster: Roster) -> None:
    assert strike(roster, STRIKES - 1) == []
    assert not roster.is_quarantined("bad")
    assert strike(roster, 1) == ["bad"]
    assert roster.is_quarantined("bad")
    assert roster.count() == {"working": 1, "quarantined": 1}
    assert strike(roster, STRIKES) == [], "it is told once"


def test_a_task_done_in_between_forgives_what_was_before(roster: Roster) -> None:
    strike(roster, STRIKES - 1)
    roster.done("bad", where_failed=[])
    assert strike(roster, STRIKES - 1) == []


def test_who_fails_first_and_then_does_it_is_no_worse_than_others(roster: Roster) -> None:
    for _ in range(STRIKES):
        assert roster.done("bad", where_failed=["bad", "bad"]) == ()


def test_quarantine_ends_with_time(roster: Roster, clock: Clock) -> None:
    strike(roster, STRIKES)
    for clock.now in range(0, 601, 30):
        assert roster.is_quarantined("bad") == (clock.now < 600)
        roster.hear("bad")
    assert strike(roster, STRIKES - 1) == [], "and begins anew with nothing against it"


def test_quarantine_does_not_follow_a_worker_under_a_new_name(roster: Roster) -> None:
    strike(roster, STRIKES)
    roster.forget("bad")
    roster.hear("bad-again")
    assert not roster.is_quarantined("bad-again")


def test_who_is_silent_is_no_other(roster: Roster, clock: Clock) -> None:
    assert roster.has_others("bad")
    clock.now = 61
    roster.hear("bad")
    assert not roster.has_others("bad")
    assert roster.count() == {"working": 1, "quarantined": 0}


def test_who_is_in_quarantine_is_no_other(roster: Roster) -> None:
    strike(roster, STRIKES)
    assert not roster.has_others("good")
    roster.pardon("bad")
    assert roster.has_others("good")
