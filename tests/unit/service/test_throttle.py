"""The throttle: ten wrong tokens a minute, counted by address, in bounded memory."""

import pytest

from service.gate import throttle
from service.gate.throttle import Throttle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ten(clock: Clock) -> Throttle:
    return Throttle(10, clock=clock)


def wrong(counting: Throttle, address: str, times: int) -> None:
    for _ in range(times):
        assert counting.wait(address) == 0
        counting.count(address)


def test_the_eleventh_try_of_a_minute_has_to_wait(ten: Throttle) -> None:
    wrong(ten, "192.0.2.1", 10)
    assert ten.wait("192.0.2.1") == 6


def test_whoever_waits_as_long_as_told_may_try_once(ten: Throttle, clock: Clock) -> None:
    wrong(ten, "192.0.2.1", 10)
    clock.now += 5.9
    assert ten.wait("192.0.2.1") == 1
    clock.now += 0.1
    wrong(ten, "192.0.2.1", 1)
    assert ten.wait("192.0.2.1") == 6


def test_after_a_minute_all_is_forgiven(ten: Throttle, clock: Clock) -> None:
    wrong(ten, "192.0.2.1", 10)
    clock.now += 60
    wrong(ten, "192.0.2.1", 10)


def test_a_pause_saves_up_no_more_than_a_bucket(ten: Throttle, clock: Clock) -> None:
    clock.now += 86_400
    wrong(ten, "192.0.2.1", 10)
    assert ten.wait("192.0.2.1") > 0


def test_other_addresses_are_not_held_up(ten: Throttle) -> None:
    wrong(ten, "192.0.2.1", 10)
    for other in ("192.0.2.2", "2001:db8::1", "unknown"):
        assert ten.wait(other) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ],
)
def test_a_subscriber_has_one_bucket_however_many_addresses(
    ten: Throttle, one: str, other: str, same: bool
) -> None:
    wrong(ten, one, 10)
    assert (ten.wait(other) > 0) == same


def test_its_memory_is_bounded_and_the_last_seen_stay(
    ten: Throttle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "REMEMBERED", 100)
    wrong(ten, "192.0.2.1", 9)
    for number in range(99):
        ten.count(f"10.0.0.{number}")
    wrong(ten, "192.0.2.1", 1)
    for number in range(99):
        ten.count(f"10.0.1.{number}")
    assert len(ten._full_at) == 100
    assert ten.wait("192.0.2.1") > 0
