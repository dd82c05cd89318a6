"""A service that is killed again and again while workers hand in outcomes: all of them count."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event, Thread

from ckptmerge.client.client import Client
from ckptmerge.client.session import Patience
from ckptmerge.domain.task import TaskState
from ckptmerge.errors import ServiceError
from ckptmerge.storage.records import StudyRecord, TaskRecord
from ckptmerge.workflow.ask import design_within
from tests.e2e.running import RunningService
from tests.torture.fake_runs import (
    begin_run,
    held_out_of,
    is_over,
    records,
    running_service,
    wait_until_over,
)
from tests.torture.fake_worker import KnownModels, merged, point_of, working
from tests.torture.finding import Finding, Scale
from tests.torture.journal import Journal
from tests.torture.odd_service import acknowledging_early, with_light_proposer

AREA = "leases"
STEPS = (10, 20, 30)
BUDGET = len(design_within(len(STEPS), 24))
"""The initial design alone: what is searched after it depends on the order of the outcomes."""

WORKERS = ("w0", "w1")
AHEAD = 4
"""Runs that are begun before the first of them must have been decided."""

LONGEST_LIFE = 1.0
"""Seconds that a service lives at most, once it has taken an outcome, before it is killed."""


@dataclass(frozen=True)
class Survived:
    """What was found after the last kill."""

    acknowledged: int
    """Outcomes that workers were told were taken."""
    lost: int
    """Those that the database does not hold, or holds another in place of."""
    studies: int
    wrong: int
    """Studies that lack a trial, or observed one as it is not."""


def kill_services(scale: Scale, folder: Path) -> Iterator[Finding]:
    """Kill a service that keeps its promises, and one that acknowledges early."""
    kills = scale.pick(short=5, full=50)
    with running_service(folder / "killed", with_light_proposer) as service:
        found = _killed(service, kills)
    yield Finding(
        area=AREA,
        promise=f"0 acknowledged outcomes lost in {kills} kills of the service",
        figure=f"{found.lost} of {found.acknowledged}",
        held=found.lost == 0 and found.acknowledged >= 2 * kills,
    )
    yield Finding(
        area=AREA,
        promise=f"every study reaches its {BUDGET} trials, each observed as its model is",
        figure=f"{found.studies - found.wrong} of {found.studies} studies",
        held=found.wrong == 0 and found.studies > 0,
    )
    tries = scale.pick(short=2, full=10)
    changes = (with_light_proposer, acknowledging_early)
    with running_service(folder / "early", *changes) as service:
        lost = _killed(service, tries, to_the_end=False).lost
    yield Finding(
        area=AREA,
        promise="control: a service that answers before it writes loses what it acknowledged",
        figure=f"{lost} lost in {tries} kills",
        held=lost > 0,
    )


def _killed(service: RunningService, kills: int, *, to_the_end: bool = True) -> Survived:
    """Kill a service so often while checkpoints come and workers work; look at what is there."""
    random = Random(0)  # noqa: S311 - chaos is no secret
    journal = Journal(service.folder / "journal")
    models = KnownModels(held_out_of(service))
    enough, runs, lost = Event(), list[str](), set[str]()
    feeding = Thread(target=_feed, args=(service, enough, runs))
    feeding.start()
    with working(service.url, WORKERS, models, journal):
        for _ in range(kills):
            known = len(journal.facts())
            # One that died before anybody spoke to it would prove nothing.
            _wait_for_news(journal, known)
            time.sleep(random.uniform(0.0, LONGEST_LIFE))
            service.kill()
            # Now: whoever asks again does what was lost once more, and nothing shows it at the end.
            lost |= _lost(service, journal)
            service.start()
        enough.set()
        feeding.join()
        if to_the_end:
            with Client(service.url) as client:
                for run in runs:
                    wait_until_over(client, run)
    service.stop()
    return _survived(service, journal, models, lost)


def _wait_for_news(journal: Journal, known: int) -> None:
    deadline = time.monotonic() + 30
    while len(journal.facts()) == known and time.monotonic() < deadline:
        time.sleep(0.01)


def _feed(service: RunningService, enough: Event, runs: list[str]) -> None:
    """Begin a run whenever one of the last few has been decided: there is always work."""
    with Client(service.url, patience=Patience(attempts=40, first=0.1, longest=0.5)) as client:
        while not enough.is_set():
            name = f"run-{len(runs)}"
            try:
                begin_run(
                    client, service.folder, name, STEPS, budget=BUDGET, context=64 + len(runs)
                )
            except ServiceError:
                return  # it was killed for good
            runs.append(name)
            while len(runs) >= AHEAD and not enough.is_set() and not is_over(client, runs[-AHEAD]):
                enough.wait(0.1)


def _lost(service: RunningService, journal: Journal) -> set[str]:
    """Return the tasks whose outcome was acknowledged and is not in the database."""
    facts = journal.facts()
    by_id = {record.id: record for record in records(service)[1]}
    return {str(fact["task"]) for fact in facts if _is_lost(fact, by_id)}


def _survived(
    service: RunningService, journal: Journal, models: KnownModels, lost: set[str]
) -> Survived:
    studies, tasks = records(service)
    over = [study for study in studies.values() if study.verdict is not None]
    return Survived(
        acknowledged=len(journal.facts()),
        lost=len(lost | _lost(service, journal)),
        studies=len(over),
        wrong=sum(not _is_right(service.folder, study, tasks, models) for study in over),
    )


def _is_lost(fact: Mapping[str, object], by_id: Mapping[str, TaskRecord]) -> bool:
    record = by_id.get(str(fact["task"]))
    if record is None:
        return True
    task, outcome = record.task, record.task.outcome
    kept = task.state is TaskState.DONE and outcome is not None and task.fence == fact["fence"]
    scores = None if outcome is None or outcome.scores is None else str(outcome.scores)
    return not kept or scores != fact["scores"]


def _is_right(
    folder: Path, study: StudyRecord, tasks: Sequence[TaskRecord], models: KnownModels
) -> bool:
    """Say whether every trial of a study was observed, once, as the loss of its model."""
    points = [point_of(folder / study.run / f"step-{step}") for step in STEPS]
    trials = [r for r in tasks if r.study == study.id and r.task.trial is not None]
    seen = {
        record.task.trial: record.observation.value
        == models.value(merged(points, record.task.order.weights.values))
        for record in trials
        if record.observation is not None and record.task.order.weights is not None
    }
    return len(trials) == BUDGET and sorted(seen) == list(range(BUDGET)) and all(seen.values())
