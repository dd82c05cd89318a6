"""A study over a line that loses answers and delivers requests twice, and one over a good line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ckptmerge.client.client import Client
from ckptmerge.domain.task import TaskState
from ckptmerge.storage.records import StudyRecord, TaskRecord, Verdict
from ckptmerge.workflow.ask import design_within
from tests.e2e.running import RunningService
from tests.torture.chaos_proxy import LossyLine
from tests.torture.fake_runs import begin_run, held_out_of, records, wait_until_over
from tests.torture.fake_worker import KnownModels, working
from tests.torture.finding import Finding, Scale

AREA = "leases"
LOST, TWICE = 0.2, 0.1
STEPS = (10, 20, 30, 40)
SEARCHED = 2
"""Candidates of each study that the real proposer names."""

WORKER = "w"


@dataclass(frozen=True)
class Course:
    """How a study went."""

    trials: list[tuple[object, ...]]
    verdict: Verdict | None
    wasted: int
    """Leases that came to nothing."""
    lost: int
    """Answers that were lost."""
    twice: int
    """Requests that came twice."""


def lose_answers(scale: Scale, sound: RunningService, odd: RunningService) -> Iterator[Finding]:
    """Compare studies on a bad line with one on a good line.

    Args:
        scale: How many there are.
        sound: A service as it is.
        odd: One that gives a worker which asks again another task.
    """
    seeds = range(scale.pick(short=1, full=4))
    steps = STEPS[: scale.pick(short=3, full=4)]
    calm = _run(sound, "calm", steps, context=80)
    disturbed = [_run(sound, f"lossy-{s}", steps, context=81 + s, seed=s) for s in seeds]
    same = sum((c.trials, c.verdict) == (calm.trials, calm.verdict) for c in disturbed)
    yield Finding(
        area=AREA,
        promise=f"{len(seeds)} studies come to the same, trial by trial and bit for bit, with "
        f"{LOST:.0%} of a worker's answers lost and {TWICE:.0%} of its requests sent twice",
        figure=f"{same} of {len(seeds)}; {_disturbances(disturbed)}",
        held=same == len(seeds) and bool(calm.trials) and all(c.lost for c in disturbed),
    )
    wasted = sum(course.wasted for course in disturbed)
    yield Finding(
        area=AREA,
        promise="0 leases lie about until they run out because their answers were lost",
        figure=str(wasted),
        held=wasted == 0,
    )
    control = _run(odd, "lossy", STEPS[:2], context=80, seed=0, lost=0.5)
    yield Finding(
        area=AREA,
        promise="control: where a worker that asks again is given other work, leases are wasted",
        figure=f"{control.wasted} leases ran out; {_disturbances([control])}",
        held=control.wasted > 0,
    )


def _run(
    service: RunningService, name: str, steps: Sequence[int], *, context: int,
    seed: int | None = None, lost: float = LOST,
) -> Course:  # fmt: skip
    """Let one worker do a study, on a bad line where a seed for it is given."""
    lost, twice = (0.0, 0.0) if seed is None else (lost, TWICE)
    models = KnownModels(held_out_of(service))
    budget = len(design_within(len(steps), 24)) + SEARCHED
    with (
        Client(service.url) as client,
        LossyLine(service.url, seed=seed or 0, lost=lost, twice=twice) as line,
    ):
        begin_run(client, service.folder, name, steps, budget=budget, context=context)
        with working(line.url, [WORKER], models):
            wait_until_over(client, name)
        studies, tasks = records(service)
        return _course(studies[name], tasks, line)


def _disturbances(courses: Sequence[Course]) -> str:
    lost, twice = sum(c.lost for c in courses), sum(c.twice for c in courses)
    return f"{lost} answers lost, {twice} requests twice"


def _course(study: StudyRecord, tasks: Sequence[TaskRecord], line: LossyLine) -> Course:
    own = [record for record in tasks if record.study == study.id]
    trials = [
        (record.task.trial, record.task.order.weights, record.observation)
        for record in own
        if record.task.trial is not None and record.state == TaskState.DONE
    ]
    # Ids are never the same twice.
    verdict = study.verdict and replace(study.verdict, best=None, before=None)
    wasted = sum(len(record.task.tried) for record in own)
    return Course(trials, verdict, wasted, line.lost, line.twice)
