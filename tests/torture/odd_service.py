"""`ckptmerge serve` with one thing about it changed, to see what depends on it.

``python -m tests.torture.odd_service CHANGE,… serve …`` applies some of ``CHANGES`` and then runs
the command as it is.
"""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ckptmerge.domain.task import Outcome, Task, TaskState
from service import app, serve
from service.dependencies import State
from service.routes import leases
from tests.integration.whole_service import believe
from tests.unit.workflow.conducted import propose

SHIFT = "TORTURE_TIME_SHIFT"
"""Environment variable: a file that says by how many seconds the time of day is wrong."""

_EARLY = 1.0
"""Seconds between an acknowledgement that comes too early and what it acknowledges."""


def without_fence() -> None:
    """Take every outcome, whoever it comes from."""

    def finish(task: Task, _fence: int, outcome: Outcome) -> Task:
        return replace(task, state=TaskState.DONE, worker=None, expires=None, outcome=outcome)

    Task.finish = finish  # type: ignore[method-assign]


def forgetful() -> None:
    """Give a worker that asks again another task, and let the one it holds lie."""
    give = leases.lease_task

    def lease_task(unit: Any, worker: str, *given: Any, **named: Any) -> Any:
        return give(unit, f"{worker}-{secrets.token_hex(4)}", *given, **named)

    leases.lease_task = lease_task


def acknowledging_early() -> None:
    """Answer first, and write to the database a moment later."""
    write = State.write

    class _NotYetError(Exception):
        """Ends a unit without its changes."""

    async def early(self: State, change: Callable[[Any], Any]) -> Any:
        found: list[Any] = []

        def tried(unit: Any) -> None:
            found.append(change(unit))
            raise _NotYetError

        async def later() -> None:
            await asyncio.sleep(_EARLY)
            await write(self, change)

        try:
            await write(self, tried)
        except _NotYetError:
            kept.append(asyncio.create_task(later()))
        return found[0]

    kept: list[asyncio.Task[None]] = []
    taken = leases._taken

    async def finish(service: State, *given: Any) -> None:
        await taken(_with_write(service, early), *given)

    leases._taken = finish


def _with_write(service: State, write: Callable[..., Any]) -> State:
    """Return the same state with another way to write."""

    class _Slow:
        def __getattr__(self, name: str) -> Any:
            return partial(write, service) if name == "write" else getattr(service, name)

    return _Slow()  # type: ignore[return-value]


def with_light_proposer() -> None:
    """Do without the process that names candidates, which takes the longest to start."""

    class Light:
        def __enter__(self) -> "Light":
            return self

        def __exit__(self, *_: object) -> None:
            """End nothing."""

        propose = staticmethod(propose)
        posterior = staticmethod(believe)

    serve.ProposerProcess = Light  # type: ignore[assignment, misc]


def with_wrong_time() -> None:
    """Let the time of day be as wrong as a file says."""
    app.wall_clock = _wrong_time


def leases_by_time_of_day() -> None:
    """Time leases by that time, too."""
    with_wrong_time()
    app.State = partial(State, clock=_wrong_time)  # type: ignore[misc]


def _wrong_time() -> float:
    try:
        shift = float(Path(os.environ[SHIFT]).read_text())
    except FileNotFoundError:
        shift = 0.0
    return time.time() + shift  # noqa: TID251 - this is the time that is wrong


CHANGES = {
    change.__name__: change
    for change in (
        without_fence, forgetful, acknowledging_early, with_wrong_time, leases_by_time_of_day,
        with_light_proposer,
    )
}  # fmt: skip


if __name__ == "__main__":
    for name in sys.argv.pop(1).split(","):
        CHANGES[name]()
    from ckptmerge.cli.main import main

    main()
