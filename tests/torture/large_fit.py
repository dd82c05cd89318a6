"""A loop that stays free: while the surrogate is fitted to hundreds of losses, all are answered."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ckptmerge.client.client import Client
from ckptmerge.domain.observation import Observation, Split
from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import Order, Outcome, Task, TaskKind, TaskState
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.storage.records import StudyRecord, TaskRecord
from ckptmerge.storage.sqlite import SqliteStore
from tests.benchmarks.latency import p99
from tests.torture.crowd import MIB, Crowd, gathered
from tests.torture.fake_runs import begin_run, held_out_of, running_service
from tests.torture.fake_worker import KnownModels
from tests.torture.finding import Finding, Scale
from tests.torture.plain_http import Line

AREA = "load"

MOST = 0.1
"""Seconds that 99 of 100 answers to /healthz take at most, at full scale."""

UPLOADS, SIZE = 4, 16 * MIB

_REPLICATES = 64
"""Losses of a candidate on resampled documents, as a study keeps them."""

_STEPS = (10, 20, 30, 40)


def large_fit(scale: Scale, folder: Path) -> Iterator[Finding]:
    """Fit again and again, upload beside it, and ask whether the service is alive."""
    observed = scale.pick(short=100, full=500)
    seconds = scale.pick(short=4, full=60)
    with running_service(folder) as service:
        with Client(service.url) as client:
            begin_run(client, folder, "large", _STEPS, budget=10**6, context=64)
        service.stop()
        study = _observe(folder / "data" / "ckptmerge.sqlite", observed)
        service.start()
        models = KnownModels(held_out_of(service))
        crowd = Crowd(service.url, models, pretended=1, heartbeat=1, pace=4 * MIB)
        fits = list[float]()
        asyncio.run(_asked(crowd, study, fits, seconds))
    waits = [wait for _, wait in crowd.tally.seconds]
    most = scale.pick(short=1000, full=round(MOST * 1e3)) / 1e3
    slowest = p99(waits or [9.9])
    yield Finding(
        area=AREA,
        promise=f"99 of 100 answers to /healthz within {most * 1e3:.0f} ms while the surrogate is "
        f"fitted to {observed} losses and {UPLOADS} uploads go on",
        figure=f"{slowest * 1e3:.0f} ms of {len(waits):,} answers; {len(fits)} fits of "
        f"{np.mean(fits or [0]):.1f} s",
        held=slowest <= most and bool(fits) and not crowd.tally.wrong,
    )


async def _asked(crowd: Crowd, study: str, fits: list[float], seconds: int) -> None:
    doings = [
        *(crowd.upload(number, SIZE) for number in range(UPLOADS)),
        crowd.look(("/healthz",), 20.0),
        _fitted(crowd.url, study, fits),
    ]
    async with gathered(doings):
        begin = time.monotonic()
        while not fits or time.monotonic() - begin < seconds:  # noqa: ASYNC110 - as many as come
            await asyncio.sleep(0.1)


async def _fitted(url: str, study: str, fits: list[float]) -> None:
    """Ask for one posterior after the other, each of another candidate, so that none is known."""
    async with Line(url) as line:
        for number in range(1, 1000):
            begin = time.monotonic()
            candidate = f"0,0,{number / 1000},{1 - number / 1000}"
            answer = await line.ask("GET", f"/v1/studies/{study}/posterior?weights={candidate}")
            if answer.status != 200:
                raise RuntimeError(f"no posterior: {answer.status} {answer.content[:300]!r}")
            fits.append(time.monotonic() - begin)


def _observe(database: Path, count: int) -> str:
    """Let a study have observed so many candidates; return its id."""
    store = SqliteStore(database)
    try:
        with store.write() as unit:
            (study,) = unit.find(StudyRecord, state=StudyState.SEARCHING)
            known = unit.find(TaskRecord, study=study.id)
            for record in known:
                unit.update(_told(record))
            for number in range(len(known), count):
                unit.insert(_told(_another(study.id, number)))
    finally:
        store.close()
    return study.id


def _another(study: str, number: int) -> TaskRecord:
    """Make the task of one more candidate."""
    shares = np.random.default_rng(number).dirichlet(np.ones(len(_STEPS)))
    order = Order(weights=MergeWeights.normalised(shares.tolist()), split=Split.SEARCH)
    key, name = f"l_{number:026}", f"trial-{number}"
    task = Task(id=key, study=study, kind=TaskKind.EVALUATE, name=name, order=order, trial=number)
    return TaskRecord(id=key, study=study, state=task.state, kind=task.kind, task=task, created=0.0)


def _told(record: TaskRecord) -> TaskRecord:
    """Say what a candidate was observed to lose: a bowl with a little noise."""
    weights = record.task.order.weights or MergeWeights.of(1.0)
    noise = np.random.default_rng(record.task.trial).normal(0, 0.01, _REPLICATES + 1)
    away = float(np.square(np.array(weights.values) - 1 / len(_STEPS)).sum())
    values = (2.0 + away + noise).tolist()
    seen = Observation(value=values[0], variance=1e-6, replicates=tuple(values[1:]))
    task = replace(
        record.task, state=TaskState.DONE, worker=None, expires=None, outcome=Outcome(status="ok")
    )
    return replace(record, task=task, state=task.state, observation=seen)
