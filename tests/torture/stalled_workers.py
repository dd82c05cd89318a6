"""A worker that is stopped for longer than its lease, and an hour that the time of day jumps."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptmerge.client.client import Client
from ckptmerge.client.session import Session
from ckptmerge.errors import ServiceError
from ckptmerge.wire.leases import LeaseResource
from tests.e2e.running import RunningService, wait_for
from tests.torture.fake_runs import TTL, begin_run, held_out_of, records
from tests.torture.fake_worker import FakeWorker, KnownModels
from tests.torture.finding import Finding

AREA = "leases"
SLACK = 2.0
"""Seconds beyond a lease's end in which its task must be another's."""

HOUR = 3600.0


def stop_workers(sound: RunningService, odd: RunningService) -> Iterator[Finding]:
    """Stop a worker beyond its lease and let it go on, with another one beside it and without.

    Args:
        sound: A service as it is.
        odd: One that takes every outcome, whoever it comes from.
    """
    waited, answer = _stopped(sound, "taken-over", another=True)
    yield Finding(
        area=AREA,
        promise=f"a stopped worker's task is another's within {TTL:g} s and {SLACK:g} s more",
        figure=f"{waited:.1f} s",
        held=waited <= TTL + SLACK,
    )
    observed = _observed(sound, "taken-over")
    yield Finding(
        area=AREA,
        promise="its own outcome, an age later, is refused (409), and its trial observed once",
        figure=f"answered {answer}, {observed} observation",
        held=(answer, observed) == (409, 1),
    )
    _, late = _stopped(sound, "waited-for", another=False)
    yield Finding(
        area=AREA,
        promise="a late outcome of a task that nobody else has taken is not wasted (200)",
        figure=f"answered {late}",
        held=late == 200,
    )
    _, answer = _stopped(odd, "taken-over", another=True)
    yield Finding(
        area=AREA,
        promise="control: without the fence the stopped worker's outcome replaces the other's",
        figure=f"answered {answer}",
        held=answer == 200,
    )


def jump_in_time(sound: RunningService, odd: RunningService, shift: Path) -> Iterator[Finding]:
    """Let the time of day jump by an hour, both ways, while one works and another is dead.

    Args:
        sound: A service as it is.
        odd: One that times leases by the time of day.
        shift: Where both read how wrong the time is.
    """
    for service in (sound, odd):
        shift.unlink(missing_ok=True)
        kept, freed = _jumped(service, shift)
        yield Finding(
            area=AREA,
            promise=(
                f"a lease is neither ended by +1 h nor longer than its {TTL:g} s by -1 h"
                if service is sound
                else "control: leases timed by the time of day end by it, or live on"
            ),
            figure=f"after +1 h {'kept' if kept else 'lost'}, after -1 h "
            f"{'freed in time' if freed else 'not freed'}",
            held=(kept and freed) is (service is sound),
        )


def _jumped(service: RunningService, shift: Path) -> tuple[bool, bool]:
    """Say whether a lease outlived a jump forward, and ended in time despite one back."""
    with Client(service.url) as client, Session(service.url) as session:
        begin_run(client, service.folder, "jumping", (10, 20), budget=3, context=64)
        busy, dead = (FakeWorker(session, n, _models(service)) for n in ("busy", "dead"))
        held = _leased(busy)
        shift.write_text(str(HOUR))
        time.sleep(TTL * 0.75)  # for the service to look at its leases more than once
        kept = _beats(session, held)
        shift.write_text(str(-HOUR))
        given_up = _leased(dead)
        shift.write_text(str(-2 * HOUR))
        _, waited = _taken_over(FakeWorker(session, "next", _models(service)), given_up.id)
        return kept, waited <= TTL + SLACK


def _stopped(service: RunningService, run: str, *, another: bool) -> tuple[float, int]:
    """Stop a worker that holds a lease for longer than that.

    Returns:
        Seconds until another had its task, and what its own outcome was answered with.
    """
    with Client(service.url) as client, Session(service.url) as session:
        begin_run(client, service.folder, run, (10, 20), budget=3, context=64 + another)
        with _slow_worker(service, run) as worker:
            assert worker.stdout is not None
            _, task, _ = worker.stdout.readline().split()
            os.kill(worker.pid, signal.SIGSTOP)
            waited = 0.0
            if another:
                other = FakeWorker(session, f"another-{run}", _models(service))
                lease, waited = _taken_over(other, task)
                if lease is not None:
                    other.report(lease)
            else:
                time.sleep(TTL + SLACK)
            os.kill(worker.pid, signal.SIGCONT)
            _, status = worker.stdout.readline().split()
        study = next(iter(client.studies(run)))
        if study.state in {"searching", "frozen"}:
            client.cancel_study(study.id)
    return waited, int(status)


@contextmanager
def _slow_worker(service: RunningService, name: str) -> Iterator["subprocess.Popen[str]"]:
    command = [
        sys.executable, "-m", "tests.torture.fake_worker", service.url, name,
        str(held_out_of(service)), "0.5",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _taken_over(worker: FakeWorker, task: str) -> tuple[LeaseResource | None, float]:
    """Ask for work until it is this task, doing all else; return its lease and the seconds."""
    begin = time.monotonic()
    while (waited := time.monotonic() - begin) < 5 * TTL:
        lease = worker.ask(wait=1.0)
        if lease is not None and lease.id == task:
            return lease, time.monotonic() - begin
        if lease is not None:
            worker.report(lease)
    return None, waited


def _leased(worker: FakeWorker) -> LeaseResource:
    found: list[LeaseResource] = []
    wait_for(lambda: found.extend(filter(None, [worker.ask(wait=1.0)])) or found, 20)
    return found[0]


def _beats(session: Session, lease: LeaseResource) -> bool:
    try:
        session.json("PUT", f"/v1/leases/{lease.id}", {"fence": lease.fence})
    except ServiceError:
        return False
    return True


def _observed(service: RunningService, run: str) -> int:
    """Count the observations of the trial whose worker was stopped."""
    studies, tasks = records(service)
    own = [r for r in tasks if r.study == studies[run].id and r.task.fence > 1]
    return sum(record.observation is not None for record in own)


def _models(service: RunningService) -> KnownModels:
    return KnownModels(held_out_of(service))
