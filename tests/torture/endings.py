"""A service that is told to end in the middle of everything: nobody is cut off, nothing is lost."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from ckptmerge.client.client import Client
from ckptmerge.domain.task import TaskState
from tests.benchmarks.served import Served
from tests.e2e.running import RunningService
from tests.torture.crowd import MIB, Crowd, content_of, gathered
from tests.torture.fake_runs import begin_run, held_out_of, records, running_service
from tests.torture.fake_worker import KnownModels
from tests.torture.finding import Finding, Scale
from tests.torture.odd_service import with_light_proposer
from tests.torture.plain_http import Answer, CutError, Line, UnansweredError

AREA = "load"

WORKERS = 12

SIZE = 2 * MIB
"""Of files: at their pace they take a second, so the end meets some of them on their way."""

PATIENCE = 35.0
"""Seconds in which the service must have ended."""

SOON = 2.0
"""Seconds after which a request that waits for work has been answered; others may be a few."""


@dataclass
class Ended:
    """What came of one end."""

    code: int = 0
    seconds: float = 0.0
    polls: list[float] = field(default_factory=list)
    """Seconds from the signal until each request that waited was answered."""
    unready: bool = False
    """Whether the service said meanwhile that it takes in nothing more."""
    wrong: list[str] = field(default_factory=list)
    """Answers that broke off, failures, and what was acknowledged and is not there."""


def endings(scale: Scale, folder: Path) -> Iterator[Finding]:
    """End a service again and again, and look at what it leaves."""
    rounds = scale.pick(short=3, full=50)
    # The surrogate has no part in this, and takes the longest to start.
    with running_service(folder, with_light_proposer, CKPTMERGE_LEASE_TTL="20") as service:
        models, ends = KnownModels(held_out_of(service)), list[Ended]()
        for number in range(rounds):
            ends.append(_ended(service, models, folder, number))
        killed = _ended(service, models, folder, rounds, kill=True)
        quick = _hurried(service)
    yield from _told(ends)
    yield Finding(
        area=AREA,
        promise="control: SIGKILL in the place of SIGTERM cuts answers off",
        figure=f"{len(killed.wrong)}",
        held=len(killed.wrong) > 0,
    )
    yield Finding(
        area=AREA,
        promise="a second SIGTERM ends the service within 1 s, whatever goes on",
        figure=f"{quick:.1f} s",
        held=quick <= 1.0,
    )


def _told(ends: list[Ended]) -> Iterator[Finding]:
    wrong = [line for end in ends for line in end.wrong]
    yield Finding(
        area=AREA,
        promise=f"{len(ends)} SIGTERMs under load: 0 answers cut off, 0 failures of requests that "
        "were taken in, 0 acknowledged outcomes and files lost",
        figure=f"{len(wrong)}{': ' + '; '.join(wrong[:3]) if wrong else ''}",
        held=not wrong,
    )
    polls = [seconds for end in ends for seconds in end.polls]
    yield Finding(
        area=AREA,
        promise=f"every request that waits for work or events is answered within {SOON:g} s",
        figure=f"{len(polls)}, the last after {max(polls, default=9.9):.2f} s",
        held=bool(polls) and max(polls) <= SOON,
    )
    unready = sum(end.unready for end in ends)
    yield Finding(
        area=AREA,
        promise="while files are on their way, /readyz says 503 each time",
        figure=f"{unready} of {len(ends)}",
        held=unready == len(ends),
    )
    codes, slowest = {end.code for end in ends}, max(end.seconds for end in ends)
    yield Finding(
        area=AREA,
        promise=f"exit code 0 within {PATIENCE:.0f} s",
        figure=f"{sorted(codes)}, at most {slowest:.1f} s",
        held=codes == {0} and slowest <= PATIENCE,
    )


def _ended(
    service: RunningService, models: KnownModels, folder: Path, number: int, *, kill: bool = False
) -> Ended:
    """Let a crowd in, end the service, look at the records, and start it again."""
    crowd = Crowd(service.url, models, pretended=0.3, heartbeat=0.1, pace=2 * MIB)
    with Client(service.url) as client:
        begin_run(client, folder, f"run-{number}", (10, 20, 30), budget=9, context=64 + number)
    end = Ended()
    stop = service.kill if kill else service.stop
    asyncio.run(_signalled(service.url, crowd, end, number, stop))
    end.wrong += crowd.tally.wrong
    _, tasks = records(service)
    known = {str(task.id): task for task in tasks}
    for key, scores in crowd.outcomes.items():
        task = known[key].task
        if task.state is not TaskState.DONE or str(task.outcome and task.outcome.scores) != scores:
            end.wrong.append(f"the outcome of {key} is lost")
    service.start()
    with httpx2.Client(base_url=service.url, timeout=60, trust_env=False) as http:
        lost = [d for d in crowd.blobs if http.head(f"/v1/blobs/{d}").status_code != 200]
    end.wrong += [f"the file {digest} is lost" for digest in lost]
    return end


async def _signalled(
    url: str, crowd: Crowd, end: Ended, number: int, stop: Callable[[], int | None]
) -> None:
    digest, blocks = content_of(number, 0, SIZE)
    async with Line(url) as line:
        await line.send("PUT", f"/v1/blobs/{digest}", blocks, size=SIZE)
    doings = [
        *(crowd.work(f"worker-{number}-{worker}") for worker in range(WORKERS)),
        # Of several sizes, so that some are on their way at any moment.
        *(crowd.upload(100 * number + size, size * SIZE // 2) for size in (2, 3, 5)),
        *(crowd.download(digest, SIZE) for _ in range(3)),
        crowd.look(("/v1/runs", f"/v1/runs/run-{number}", "/v1/studies"), 20.0),
    ]
    async with gathered(doings):
        await asyncio.sleep(0.5 + 0.37 * number % 1)  # each end meets another moment
        waiting = [
            asyncio.create_task(_until_answered(url, "POST", "/v1/leases")),
            asyncio.create_task(_until_answered(url, "GET", "/v1/events")),
        ]
        await asyncio.sleep(0.5)
        crowd.tally.draining, begin = True, time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(stop))
        end.unready = await _unready(url)
        for task in waiting:
            answered, wrong = await task
            end.polls.append(answered - begin)
            end.wrong += wrong
        end.code = await stopping or 0
        end.seconds = time.monotonic() - begin


async def _until_answered(url: str, method: str, path: str) -> tuple[float, list[str]]:
    """Wait for work of a kind that nobody has, or for events; return when that ended, and how."""
    async with Line(url) as line:
        try:
            if method == "GET":
                async for _ in line.follow(path):
                    pass
                return time.monotonic(), []
            wanted = {"worker": "patient", "wait": 30, "kinds": ["materialise"]}
            answer = await line.ask(method, path, wanted)
        except (CutError, UnansweredError) as error:
            return time.monotonic(), [f"{path}: {error}"]
    return time.monotonic(), [] if answer.status == 204 else [f"{path}: {answer.status}"]


async def _unready(url: str) -> bool:
    """Ask again and again whether the service is ready, until it is gone or says that it is not."""
    while True:
        async with Line(url) as line:
            try:
                answer: Answer = await line.ask("GET", "/readyz")
            except (CutError, UnansweredError):
                return False
        if answer.status == 503:
            return True
        await asyncio.sleep(0.05)


def _hurried(service: RunningService) -> float:
    """Tell a service with an upload under way to end, twice; return the seconds after the second.

    The upload never comes to its end, so without the second signal the first would wait for it.
    """
    process = Served(service, service.folder).process
    with httpx2.Client(base_url=service.url, trust_env=False) as http:
        http.get("/healthz").raise_for_status()

    async def signalled() -> float:
        digest, blocks = content_of(1, 0, 64 * MIB)
        async with Line(service.url) as line:
            sending = asyncio.create_task(
                line.send("PUT", f"/v1/blobs/{digest}", blocks, size=64 * MIB, pace=MIB)
            )
            await asyncio.sleep(1)
            os.kill(process, signal.SIGTERM)
            await asyncio.sleep(1)
            begin = time.monotonic()
            await asyncio.to_thread(service.stop)
            sending.cancel()
            return time.monotonic() - begin

    return asyncio.run(signalled())
