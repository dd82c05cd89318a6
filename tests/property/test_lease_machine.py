"""Leases of real studies in real stores, under everything that can happen to them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from ckptmerge.domain.task import Outcome, Task, TaskState
from tests.integration.stores import opener
from tests.property.lease_machine import Fresh, LeaseMachine, Opener, run_lease_machine

STEPS = {"sqlite": 2000, "memory": 2000, "postgres": 500}


@pytest.fixture
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    """Make an empty store of a kind, again and again."""
    kind, numbers = request.param, count()
    server = request.getfixturevalue("postgres_server") if kind == "postgres" else None

    def place() -> AbstractContextManager[Opener]:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return opener(kind, folder, "" if server is None else server.create_database())

    return place


@pytest.mark.parametrize(("fresh", "steps"), STEPS.items(), indirect=["fresh"])
def test_each_trial_is_observed_once_whatever_happens(fresh: Fresh, steps: int) -> None:
    assert run_lease_machine(fresh, steps=steps) >= steps


@contextmanager
def in_memory() -> Iterator[Opener]:
    with opener("memory", Path()) as opened:
        yield opened


def test_without_the_fence_the_machine_finds_an_outcome_that_counts_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def finish(task: Task, _fence: int, outcome: Outcome) -> Task:
        return replace(task, state=TaskState.DONE, worker=None, expires=None, outcome=outcome)

    monkeypatch.setattr(Task, "finish", finish)
    with pytest.raises(AssertionError):
        run_lease_machine(in_memory, steps=2000)


def test_leases_that_went_by_the_time_of_day_would_be_found_out() -> None:
    class ByTimeOfDay(LeaseMachine):
        def jump(self, seconds: float) -> None:
            super().jump(seconds)
            self.clock += seconds

    with pytest.raises(AssertionError):
        run_lease_machine(in_memory, steps=2000, kind=ByTimeOfDay)
