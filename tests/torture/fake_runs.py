"""Runs whose checkpoints are fakes, in a real service: begun, looked at, and waited for."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ckptmerge.client.client import GOING, Client
from ckptmerge.errors import ServiceError
from ckptmerge.storage.records import StudyRecord, TaskRecord
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.wire.runs import NewStudySpec, WindowPolicySpec
from tests.e2e.running import COMMAND, RunningService, wait_for
from tests.torture.arrivals import write_held_out
from tests.torture.fake_worker import write_checkpoint

TTL = 2.0
"""Seconds of a lease."""

PATIENCE = 120.0
"""Seconds in which a study of a few milliseconds a candidate must have come to its end."""


@contextmanager
def running_service(
    folder: Path, *changes: Callable[[], None], **environ: str
) -> Iterator[RunningService]:
    """Run a service without workers, as it is or with something changed about it."""
    folder.mkdir()
    odd = ["-m", "tests.torture.odd_service", ",".join(change.__name__ for change in changes)]
    with RunningService(
        folder,
        write_held_out(folder),
        workers=0,
        environ={"CKPTMERGE_LEASE_TTL": str(TTL), **environ},
        command=[sys.executable, *odd] if changes else COMMAND,
    ) as service:
        yield service


def held_out_of(service: RunningService) -> Path:
    """Return the documents that the service judges by."""
    return service.folder / "held-out.jsonl"


def begin_run(
    client: Client, folder: Path, name: str, steps: Sequence[int], *, budget: int, context: int
) -> None:
    """Make a run and send its checkpoints; with the last one its study opens.

    Another context makes it other scores: nothing of one run is reused by the next.
    """
    spec = NewStudySpec(budget=budget, context=context)
    window = WindowPolicySpec(size=len(steps), every=len(steps), minimum=len(steps))
    client.create_run(name, study=spec, window=window)
    place = folder / name
    place.mkdir()
    for step in steps:
        client.push(write_checkpoint(place, step), run=name)


def is_over(client: Client, name: str) -> bool:
    """Say whether the run's study has come to its end; False while the service is away."""
    try:
        study = next(iter(client.studies(name)), None)
    except ServiceError:
        return False
    return study is not None and study.state not in GOING


def wait_until_over(client: Client, name: str) -> None:
    """Wait for the end of a run's study."""
    wait_for(lambda: is_over(client, name), PATIENCE)


def records(service: RunningService) -> tuple[Mapping[str, StudyRecord], list[TaskRecord]]:
    """Return the studies of a service, by run, and all tasks."""
    store = SqliteStore(service.folder / "data" / "ckptmerge.sqlite")
    try:
        with store.read() as snapshot:
            studies = {study.run: study for study in snapshot.find(StudyRecord)}
            return studies, snapshot.find(TaskRecord)
    finally:
        store.close()
