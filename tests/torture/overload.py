"""More than can be answered: whoever is too many is sent away at once, and told when to come."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.latency import p99
from tests.benchmarks.served import Served
from tests.torture.crowd import MIB, content_of
from tests.torture.fake_runs import running_service
from tests.torture.finding import Finding, Scale
from tests.torture.odd_service import with_light_proposer
from tests.torture.plain_http import Answer, CutError, Line, UnansweredError

AREA = "load"

AT_ONCE = 1.0
"""Seconds in which whoever is too many hears it."""

RECOVERED = 5.0
"""Seconds after the last of them has gone, in which everybody is answered again."""

GROWTH = 64 * MIB
"""Bytes that the service may need for them."""

_SETTLED = 2.0
"""Seconds after which everybody has been sent away who will be."""

_ARRIVALS = 200.0
"""Workers a second that begin to wait."""

_EVERYBODY = {"WAITING_AT_ONCE": 10**6, "REQUESTS_AT_ONCE": 10**6, "UPLOADS_AT_ONCE": 10**6}


@dataclass
class Turned:
    """What came of those who were too many."""

    away: list[float] = field(default_factory=list)
    """Seconds after which each was sent away."""
    served: list[float] = field(default_factory=list)
    """Seconds after which each was answered as if they had been alone."""
    wrong: list[str] = field(default_factory=list)

    async def ask(self, asked: Callable[[], Awaitable[Answer]]) -> None:
        """Ask, and note what comes of it."""
        begin = time.monotonic()
        try:
            answer = await asked()
        except (CutError, UnansweredError) as error:
            self.wrong.append(str(error))
            return
        seconds = time.monotonic() - begin
        if answer.sends_away:
            self.away.append(seconds)
        elif answer.status < 300:
            self.served.append(seconds)
        else:
            self.wrong.append(f"{answer.status} {answer.content[:200]!r}")


def overload(scale: Scale, folder: Path) -> Iterator[Finding]:
    """Ask for three times what there may be, of each kind; and of a service without bounds."""
    polls, small, uploads = (scale.pick(short=few, full=many) for few, many in _BOUNDS)
    bounds = {"WAITING_AT_ONCE": polls, "REQUESTS_AT_ONCE": small, "UPLOADS_AT_ONCE": uploads}
    with _service(folder, bounds) as service:
        served = Served(service, folder)
        idle = served.begin_peak()
        for what, bound, kind in (
            ("workers that wait", polls, _waiting),
            ("requests", small, _looking),
            ("uploads", uploads, _sending),
        ):
            turned = asyncio.run(kind(service.url, 3 * bound))
            yield _sent_away(what, bound, turned)
            yield asyncio.run(_back(service.url, what))
        growth = served.peak() - idle
    yield Finding(
        area=AREA,
        promise="all this in at most 64 MiB of memory over idle",
        figure=f"{growth / MIB:.0f} MiB",
        held=growth <= GROWTH,
    )
    with _service(folder / "open", _EVERYBODY) as service:
        turned = asyncio.run(_waiting(service.url, 3 * polls))
    yield Finding(
        area=AREA,
        promise="control: without bounds nobody is sent away",
        figure=f"{len(turned.away)} of {3 * polls}",
        held=not turned.away and not turned.wrong,
    )


_BOUNDS = ((64, 512), (32, 128), (16, 64))
"""Of workers that wait, small requests and uploads; at full scale those of the settings."""


def _service(folder: Path, bounds: dict[str, int]):
    environ = {f"CKPTMERGE_{name}": str(value) for name, value in bounds.items()}
    return running_service(folder, with_light_proposer, **environ)


async def _waiting(url: str, count: int) -> Turned:
    """Ask for work that never comes, so many at once; leave after a while."""

    async def wait(number: int) -> None:
        await asyncio.sleep(number / _ARRIVALS)
        async with Line(url) as line:
            wanted = {"worker": f"worker-{number}", "wait": 30}
            await turned.ask(lambda: line.ask("POST", "/v1/leases", wanted))

    turned = Turned()
    tasks = [asyncio.create_task(wait(number)) for number in range(count)]
    await asyncio.sleep(count / _ARRIVALS + _SETTLED)
    async with Line(url) as line:
        answer = await asyncio.wait_for(line.ask("GET", "/healthz"), AT_ONCE)
        assert answer.status == 200
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return turned


async def _looking(url: str, count: int) -> Turned:
    """Look again and again, so many at once, and come back sooner than one was asked to."""

    async def look() -> None:
        async with Line(url) as line:
            while time.monotonic() < end:
                before = len(turned.away)
                await turned.ask(lambda: line.ask("GET", "/v1/studies"))
                if len(turned.away) > before:
                    await asyncio.sleep(0.5)

    turned, end = Turned(), time.monotonic() + _SETTLED
    await asyncio.gather(*(look() for _ in range(count)))
    return turned


async def _sending(url: str, count: int) -> Turned:
    """Send files over slow lines, so many at once, as clients that wait to be bidden."""

    async def send(number: int) -> None:
        digest, blocks = content_of(number, 0, 2 * MIB)
        async with Line(url) as line:
            await turned.ask(
                lambda: line.send(
                    "PUT", f"/v1/blobs/{digest}", blocks, size=2 * MIB, pace=MIB, unbidden=False
                )
            )

    turned = Turned()
    await asyncio.gather(*(send(number) for number in range(count)))
    return turned


def _sent_away(what: str, bound: int, turned: Turned) -> Finding:
    slowest = p99(turned.away or [9.9])
    return Finding(
        area=AREA,
        promise=f"{3 * bound} {what} where {bound} may be: the others get 503 with Retry-After and "
        f"a problem, 99 of 100 within {AT_ONCE:g} s; nobody gets anything else",
        figure=f"{len(turned.away)} sent away, p99 {slowest * 1e3:.0f} ms; {len(turned.wrong)} "
        f"otherwise{': ' + turned.wrong[0] if turned.wrong else ''}",
        held=len(turned.away) > 0 and slowest <= AT_ONCE and not turned.wrong,
    )


async def _back(url: str, what: str) -> Finding:
    """Say after how long all kinds are answered again."""
    begin, slow = time.monotonic(), True
    async with Line(url) as line:
        while slow and time.monotonic() - begin < 2 * RECOVERED:
            asked = time.monotonic()
            answers = [await _one_of_each(line, number) for number in range(3)]
            slow = any(map(_failed, answers)) or time.monotonic() - asked > AT_ONCE
    seconds = time.monotonic() - begin
    return Finding(
        area=AREA,
        promise=f"within {RECOVERED:g} s of {what}, everybody is answered as before",
        figure=f"{seconds:.1f} s",
        held=not slow and seconds <= RECOVERED,
    )


async def _one_of_each(line: Line, number: int) -> Sequence[Answer]:
    digest, blocks = content_of(number, 1, MIB)
    return [
        await line.ask("POST", "/v1/leases", {"worker": "after", "wait": 0}),
        await line.ask("GET", "/v1/studies"),
        await line.send("PUT", f"/v1/blobs/{digest}", blocks, size=MIB),
    ]


def _failed(answers: Sequence[Answer]) -> bool:
    return any(answer.status >= 300 for answer in answers)
