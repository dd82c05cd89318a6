"""A long rush: workers, uploads, downloads and people who look, and what it costs the service."""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptmerge.client.client import Client
from tests.benchmarks.latency import p99
from tests.benchmarks.served import Served
from tests.benchmarks.table import median
from tests.torture.crowd import MIB, Crowd, content_of, gathered
from tests.torture.fake_runs import begin_run, held_out_of, running_service
from tests.torture.fake_worker import KnownModels
from tests.torture.finding import Finding, Scale
from tests.torture.plain_http import Line

AREA = "load"

STRETCHES = 5

PACE = 4 * MIB
"""Bytes a second of each transfer, so that the service is measured and not the disk."""

UPLOADS, DOWNLOADS, SIZE = 4, 8, 64 * MIB

LOOKS = 20.0
"""Requests a second of people who look."""

MEMORY = 400 * MIB

STEADY = 0.05
"""Of descriptors and threads: what they may grow by."""

FEW = 8
"""So many more are no growth: which connections are open is chance."""

_LEASE = 12.0
"""Seconds of a lease; a third of it passes between heartbeats."""


@dataclass
class Held:
    """What the process held at each look, one a second: open files, and threads."""

    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    async def watch(self, process: int) -> None:
        """Look until cancelled."""
        while True:
            self.look(Path(f"/proc/{process}"))
            await asyncio.sleep(1)

    def look(self, process: Path) -> None:
        """Look once."""
        self.files.append(len(list((process / "fd").iterdir())))
        self.threads.append(len(list((process / "task").iterdir())))


def rush(scale: Scale, folder: Path) -> Iterator[Finding]:
    """Let everybody in, and say how the service fared."""
    workers = scale.pick(short=40, full=200)
    seconds = scale.pick(short=10, full=600)
    with running_service(folder, CKPTMERGE_LEASE_TTL=str(_LEASE)) as service:
        served, held = Served(service, folder), Held()
        crowd = Crowd(
            service.url, KnownModels(held_out_of(service)), pretended=scale.pick(short=2, full=10),
            heartbeat=_LEASE / 3, pace=PACE,
        )  # fmt: skip
        crowded = [crowd.work(f"worker-{number}") for number in range(workers)]
        everybody = [*crowded, held.watch(served.process), _train(service.url, folder)]
        begin = asyncio.run(_rushed(crowd, folder, everybody, seconds))
        peak, said = served.peak(), service.log()
    doing = (
        f"{workers} workers, {UPLOADS} uploads and {DOWNLOADS} downloads of 64 MiB at 4 MiB/s each "
        f"and {LOOKS:.0f} looks/s for {seconds} s"
    )
    answered = sum(crowd.tally.counts.values())
    errors = [*crowd.tally.wrong, *_complaints(said)]
    yield Finding(
        area=AREA,
        promise=f"{doing}: 0 errors, 0 connections dropped, 0 times `database is locked`",
        figure=f"{len(errors)} of {answered:,} answers, {crowd.tally.counts['outcome 200']:,} of "
        f"them to outcomes{': ' + '; '.join(errors[:3]) if errors else ''}",
        held=not errors and crowd.tally.counts["outcome 200"] > 0,
    )
    yield _latency(crowd.tally.seconds, begin, seconds, scale)
    yield Finding(
        area=AREA,
        promise="meanwhile at most 400 MiB of memory in the process of the service",
        figure=f"{peak / MIB:.0f} MiB",
        held=peak <= MEMORY,
    )
    if scale is Scale.FULL:
        yield _steady("open files", held.files)
        yield _steady("threads", held.threads)


async def _rushed(
    crowd: Crowd, folder: Path, others: Sequence[Coroutine[Any, Any, None]], seconds: int
) -> float:
    """Let it go on for so long; return when it began."""
    digest, blocks = content_of(0, 0, SIZE)
    async with Line(crowd.url) as line:
        crowd.tally.count(
            "upload", await line.send("PUT", f"/v1/blobs/{digest}", blocks, size=SIZE)
        )
    paths = ("/v1/runs/run-0/best", "/v1/runs?limit=20", "/v1/studies?limit=20", "/healthz")
    await asyncio.to_thread(_begin, crowd.url, folder, 0)
    doings = [
        *others,
        *(crowd.upload(1 + number, SIZE) for number in range(UPLOADS)),
        *(crowd.download(digest, SIZE) for _ in range(DOWNLOADS)),
        crowd.look(paths, LOOKS),
        crowd.follow(),
    ]
    begin = time.monotonic()
    async with gathered(doings):
        await asyncio.sleep(seconds)
    return begin


async def _train(url: str, folder: Path) -> None:
    """Let another run have its checkpoints every few seconds, and with them a study."""
    for number in range(1, 2**32):
        await asyncio.to_thread(_begin, url, folder, number)
        await asyncio.sleep(4)


def _begin(url: str, folder: Path, number: int) -> None:
    with Client(url) as client:
        begin_run(client, folder, f"run-{number}", (10, 20, 30, 40), budget=14, context=64 + number)


def _latency(waits: list[tuple[float, float]], begin: float, seconds: int, scale: Scale) -> Finding:
    each = seconds / STRETCHES
    found = [
        p99([wait for due, wait in waits if int((due - begin) / each) == stretch] or [9.9])
        for stretch in range(STRETCHES)
    ]
    most = scale.pick(short=1000, full=250) / 1e3
    middle = median([wait for _, wait in waits])
    return Finding(
        area=AREA,
        promise=f"meanwhile median of five p99 of small requests at most {most * 1e3:.0f} ms, from "
        "when each was due",
        figure=f"{median(found) * 1e3:.0f} ms, the five "
        f"{', '.join(f'{value * 1e3:.0f}' for value in found)}; p50 {middle * 1e3:.1f} ms of "
        f"{len(waits):,}",
        held=median(found) <= most,
    )


def _steady(what: str, counts: list[int]) -> Finding:
    each = len(counts) // STRETCHES
    early, late = median(counts[each : 2 * each]), median(counts[-each:])
    return Finding(
        area=AREA,
        promise=f"meanwhile the number of {what} grows by at most 5 % or {FEW} from the second "
        "fifth to the last",
        figure=f"{early:.0f}, then {late:.0f}",
        held=late - early <= max(STEADY * early, FEW),
    )


def _complaints(said: str) -> list[str]:
    """Return the lines of a log that nobody should write."""
    return [
        line[:300]
        for line in said.splitlines()
        if "database is locked" in line or '"level": "error"' in line
    ]
