"""Leases and studies: workers and services that stall, die and lose each other's answers."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count
from pathlib import Path
from unittest.mock import patch

from ckptmerge.domain.task import Outcome, Task, TaskState
from tests.integration.stores import opener
from tests.property.lease_machine import Fresh, Opener, run_lease_machine
from tests.torture.fake_runs import running_service
from tests.torture.finding import Finding, Scale
from tests.torture.killed_services import kill_services
from tests.torture.lost_answers import lose_answers
from tests.torture.odd_service import (
    SHIFT,
    forgetful,
    leases_by_time_of_day,
    with_light_proposer,
    with_wrong_time,
    without_fence,
)
from tests.torture.stalled_workers import jump_in_time, stop_workers

AREA = "leases"
CONTROL_STEPS = 5000
"""Far more than it takes to find what is wrong without the fence."""


def torture(scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Yield what was found."""
    yield from _walk_at_random(scale, scratch)
    shift = scratch / "shift"
    wrong_time = {SHIFT: str(shift)}
    changes = (without_fence, forgetful, leases_by_time_of_day, with_light_proposer)
    with (
        running_service(scratch / "sound", with_wrong_time, **wrong_time) as sound,
        running_service(scratch / "odd", *changes, **wrong_time) as odd,
    ):
        yield from stop_workers(sound, odd)
        yield from lose_answers(scale, sound, odd)
        yield from jump_in_time(sound, odd, shift)
    yield from kill_services(scale, scratch)


def _walk_at_random(scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Let everything happen that can, in any order, to leases in a real store."""
    steps, numbers = scale.pick(short=200, full=10_000), count()

    def place() -> AbstractContextManager[Opener]:
        folder = scratch / f"machine-{next(numbers)}"
        folder.mkdir()
        return opener("sqlite", folder)

    taken, wrong = _taken(place, steps)
    yield Finding(
        area=AREA,
        promise=f"0 violations in {steps} random steps: one observation a trial at most, and one "
        "for certain where an outcome was acknowledged",
        figure=f"{taken} steps, {wrong or 'none'}",
        held=wrong is None and taken >= steps,
    )

    def finish(task: Task, _fence: int, outcome: Outcome) -> Task:
        return replace(task, state=TaskState.DONE, worker=None, expires=None, outcome=outcome)

    with patch.object(Task, "finish", finish):
        _, wrong = _taken(lambda: opener("memory", scratch), CONTROL_STEPS)
    yield Finding(
        area=AREA,
        promise="control: without the fence a violation is found",
        figure=wrong or f"none in {CONTROL_STEPS} steps",
        held=wrong is not None,
    )


def _taken(place: Fresh, steps: int) -> tuple[int, str | None]:
    """Take so many steps; return how many were taken, and what went wrong."""
    try:
        return run_lease_machine(place, steps=steps), None
    except AssertionError as error:
        return 0, str(error).splitlines()[0]
