"""The real service and its worker, killed at random while it searches and checkpoints come."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread

from ckptmerge.client.client import Client
from ckptmerge.errors import ServiceError
from tests.conftest import _trained
from tests.e2e.processes import processes_of
from tests.e2e.running import RunningService, decided, wait_for
from tests.e2e.searched import search
from tests.torture.arrivals import RUN, files_of, settings_of
from tests.torture.finding import Finding, Scale
from tests.torture.inspected import look
from tests.torture.journal import Journal

STEPS, BUDGET = 2, 6
"""A short study; its worker has something to do all the while."""

LONGEST = 0.8
"""Seconds between a start and the next kill, at most: a start takes one or two."""


def kill_at_random(scale: Scale, folder: Path) -> Iterator[Finding]:
    """Kill the service, and now and then its worker, and look at the end."""
    folder.mkdir()
    trained = _trained("constant")
    journal, random = Journal(folder / "journal"), Random(4)  # noqa: S311 - the same each time
    kills = {"service": 0, "worker": 0}
    with RunningService(folder, trained.held_out) as service:
        with Client(service.url) as client:
            window = {"size": 64, "every": 64, "minimum": 64}
            client._session.json("POST", "/v1/runs", {"name": RUN, "window": window})
            search(client, trained.checkpoints[-STEPS:], budget=BUDGET)
        with _pushing(service.url, folder / "source", journal):
            for _ in range(scale.pick(short=6, full=100)):
                time.sleep(random.uniform(0, LONGEST))
                victim = "worker" if random.random() < 0.3 and service.kill_worker() else "service"
                if victim == "service":
                    _kill_and_start(service)
                kills[victim] += 1
        with Client(service.url) as client:
            if scale is Scale.FULL:
                wait_for(lambda: decided(client, "run"), 240, service.log)
            state = next(iter(client.studies("run"))).state
        code = service.stop()
    seen = look(settings_of(folder / "data", trained.held_out), journal)
    landed = sum("checkpoint" in fact for fact in journal.facts())
    expected = {"decided"} if scale is Scale.FULL else {"searching", "frozen", "decided"}
    yield Finding(
        area="crashes",
        promise=f"the real service: 0 of the acknowledged objects lost, 0 partial ones visible and "
        f"0 files left behind by {sum(kills.values())} kills at random, and its study goes on",
        figure=f"{len(seen.lost)} of {landed} checkpoints and their files lost, "
        f"{len(seen.partial)} partial, {len(seen.left)} left by {kills['service']} kills of the "
        f"service and {kills['worker']} of its worker; study {state}"
        + (f": {seen}" if seen else ""),
        held=not seen and landed > 0 and state in expected and code == 0,
    )


def _kill_and_start(service: RunningService) -> None:
    """Kill the service, let its worker find that out, and start it again."""
    (process,) = service.processes("serve --data")
    group = os.getpgid(process)
    service.kill()
    wait_for(lambda: not processes_of(group, "worker --url"), 20)
    service.start()


@contextmanager
def _pushing(url: str, source: Path, journal: Journal) -> Iterator[None]:
    """Push checkpoints for as long as the block runs, each until it has landed."""
    stop = Event()

    def push() -> None:
        step = 0
        while not stop.wait(0.01):
            _write(source / str(step), step)
            try:
                with Client(url) as client:
                    landed = client.push(source / str(step), run=RUN, step=step)
            except ServiceError:
                continue  # it is being killed: the same bytes again
            journal.say(checkpoint=landed.id, digest=landed.digest, step=step)
            for file in landed.files:
                journal.say(blob=file.digest.removeprefix("sha256:"))
            step += 1

    pusher = Thread(target=push, daemon=True)
    pusher.start()
    try:
        yield
    finally:
        stop.set()
        pusher.join(60)


def _write(folder: Path, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files_of(step).items():
        (folder / name).write_bytes(content)
