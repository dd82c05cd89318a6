"""The outbox sits out a service's absence, and gives up only what nobody can take."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from ckptmerge.errors import ServiceError
from ckptmerge.trainer.hold import HeldCheckpoint
from ckptmerge.trainer.outbox import Outbox


@pytest.fixture
def held(tmp_path: Path) -> Callable[[int], HeldCheckpoint]:
    def make(step: int) -> HeldCheckpoint:
        folder = tmp_path / str(step)
        folder.mkdir()
        return HeldCheckpoint(folder, step, None, {})

    return make


def test_what_a_service_missed_while_it_was_away_comes_later_and_in_order(
    held: Callable[[int], HeldCheckpoint], tmp_path: Path
) -> None:
    delivered: list[int] = []
    absent = [ServiceError("away"), ServiceError("busy", status=503)]
    done = Event()

    def deliver(checkpoint: HeldCheckpoint) -> None:
        if absent:
            raise absent.pop()
        delivered.append(checkpoint.step)
        if len(delivered) == 2:
            done.set()

    outbox = Outbox(deliver, limit=2, first_break=0.01)
    outbox.put(held(1))
    outbox.put(held(2))
    assert done.wait(5)
    outbox.close(5)
    assert delivered == [1, 2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [ServiceError("no", status=409, kind="step-exists"), OSError("gone"), ZeroDivisionError()],
)
def test_a_refusal_and_a_fault_end_one_checkpoint_and_not_the_next(
    held: Callable[[int], HeldCheckpoint], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    delivered: list[int] = []

    def deliver(checkpoint: HeldCheckpoint) -> None:
        if checkpoint.step == 1:
            raise error
        delivered.append(checkpoint.step)

    outbox = Outbox(deliver, limit=4, first_break=30)
    outbox.put(held(1))
    outbox.put(held(2))
    outbox.close(5)
    assert delivered == [2]
    assert "step 1 was not sent" in caplog.text


def test_the_end_does_not_wait_for_a_service_that_is_away(
    held: Callable[[int], HeldCheckpoint], caplog: pytest.LogCaptureFixture
) -> None:
    tried = Event()

    def deliver(_: HeldCheckpoint) -> None:
        tried.set()
        raise ServiceError("away")

    outbox = Outbox(deliver, limit=4, first_break=30)
    outbox.put(held(1))
    assert tried.wait(5)
    began = time.monotonic()
    outbox.close(20)
    assert time.monotonic() - began < 5
    assert "step 1 was not sent" in caplog.text


def test_the_end_waits_no_longer_than_it_may(
    held: Callable[[int], HeldCheckpoint], caplog: pytest.LogCaptureFixture
) -> None:
    release = Event()
    outbox = Outbox(lambda _: release.wait(10) and None, limit=4)
    outbox.put(held(1))
    outbox.put(held(2))
    outbox.close(0.05)
    release.set()
    assert "step 1 was not sent: training ended" in caplog.text
    assert "step 2 was not sent: training ended" in caplog.text
