"""Everybody at once: workers that poll, uploads, downloads, and people who look, in one event loop.

People come at a fixed rate, however long the answers take, and their waiting counts from when they
came: clients that ask again only when they were answered would hide every queue.
"""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from tests.torture.fake_worker import MODEL, KnownModels, merged
from tests.torture.plain_http import Answer, CutError, Line, UnansweredError

MIB = 2**20
POLL = 20.0
"""Seconds that a worker's request for work waits."""

_BLOCK = 2**18
_ZEROS = bytes(_BLOCK)

FINE = frozenset({200, 201, 204})


@dataclass
class Tally:
    """What the crowd was answered."""

    counts: Counter[str] = field(default_factory=Counter)
    """Answers by what was asked and the status."""
    wrong: list[str] = field(default_factory=list)
    """Answers that nobody should get, and answers that broke off or never came."""
    seconds: list[tuple[float, float]] = field(default_factory=list)
    """When a small request was made, and how long it waited for its answer."""
    draining: bool = False
    """Whether the service was told to end: it may send people away, and be gone."""

    def count(self, what: str, answer: Answer) -> None:
        """Count an answer."""
        self.counts[f"{what} {answer.status}"] += 1
        refused = self.draining and answer.sends_away
        if answer.status not in FINE and not refused:
            self.wrong.append(f"{what}: {answer.status} {answer.content[:200]!r}")

    def fail(self, what: str, error: CutError | UnansweredError) -> None:
        """Count an answer that never came, or not to its end."""
        if isinstance(error, CutError) or not self.draining:
            self.wrong.append(f"{what}: {error}")


@dataclass
class Crowd:
    """Clients of one service; their doings are coroutines that never end.

    Args:
        url: Of the service.
        models: What workers know.
        pretended: Seconds that an evaluation takes.
        heartbeat: Seconds between two heartbeats.
        pace: Bytes a second of each upload and download.
    """

    url: str
    models: KnownModels
    pretended: float
    heartbeat: float
    pace: float
    tally: Tally = field(default_factory=Tally)
    outcomes: dict[str, str] = field(default_factory=dict)
    """Scores by task, of outcomes that were acknowledged."""
    blobs: list[str] = field(default_factory=list)
    """Digests of uploads that were acknowledged."""
    _points: dict[str, np.ndarray] = field(default_factory=dict)
    _idle: list[Line] = field(default_factory=list)

    async def work(self, name: str) -> None:
        """Poll for work, and do it."""
        async with Line(self.url) as line:
            while True:
                wanted = {"worker": name, "wait": POLL}
                with self._noted("poll"):
                    answer = await line.ask("POST", "/v1/leases", wanted)
                    self.tally.count("poll", answer)
                    if answer.status == 201:
                        await self._do(line, answer.json())
                        continue
                    if answer.status == 204:
                        continue
                await asyncio.sleep(1)

    async def upload(self, seed: int, size: int) -> None:
        """Send one new file after the other."""
        for number in range(2**32):
            digest, blocks = await asyncio.to_thread(content_of, seed, number, size)
            with self._noted("upload"):
                async with Line(self.url) as line:
                    path = f"/v1/blobs/{digest}"
                    answer = await line.send("PUT", path, blocks, size=size, pace=self.pace)
                self.tally.count("upload", answer)
                if answer.status in FINE:
                    self.blobs.append(digest)
                    continue
            await asyncio.sleep(1)

    async def download(self, digest: str, size: int) -> None:
        """Take the same file again and again."""
        while True:
            with self._noted("download"):
                async with Line(self.url) as line:
                    answer, taken = await line.take(f"/v1/blobs/{digest}", pace=self.pace)
                self.tally.count("download", answer)
                if answer.status == 200:
                    if taken != size:
                        self.tally.wrong.append(f"download: {taken:,} of {size:,} bytes")
                    continue
            await asyncio.sleep(1)

    async def follow(self) -> None:
        """Follow the events until the service ends the stream."""
        with self._noted("events"):
            async with Line(self.url) as line:
                async for _ in line.follow("/v1/events"):
                    pass
        await asyncio.Event().wait()

    async def look(self, paths: Sequence[str], rate: float) -> None:
        """Let somebody look at one of the paths, so many times a second."""
        looking = set[asyncio.Task[None]]()
        begin = time.monotonic()
        for number in range(2**32):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._look(paths[number % len(paths)], due))
            looking.add(task)
            task.add_done_callback(looking.discard)

    async def _look(self, path: str, due: float) -> None:
        line = self._idle.pop() if self._idle else Line(self.url)
        with self._noted("look"):
            answer = await line.ask("GET", path)
            self.tally.count(path.partition("?")[0], answer)
            self.tally.seconds.append((due, time.monotonic() - due))
            self._idle.append(line)

    async def _do(self, line: Line, lease: dict[str, Any]) -> None:
        """Do a lease as slowly as a real one, with its heartbeats, and hand it in."""
        address, fence = f"/v1/leases/{lease['id']}", lease["fence"]
        end = time.monotonic() + self.pretended
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self.heartbeat))
            answer = await self._timed(line, "PUT", address, {"fence": fence}, what="heartbeat")
            if answer.status in FINE and answer.json()["directive"] == "cancel":
                return
        outcome = await self._outcome(line, lease)
        if outcome is None:
            return
        answer = await self._timed(line, "POST", f"{address}/outcome", outcome, what="outcome")
        if answer.status in FINE and outcome.get("scores"):
            self.outcomes[lease["id"]] = outcome["scores"]

    async def _timed(
        self, line: Line, method: str, path: str, body: object, *, what: str
    ) -> Answer:
        begin = time.monotonic()
        answer = await line.ask(method, path, body)
        self.tally.seconds.append((begin, time.monotonic() - begin))
        self.tally.count(what, answer)
        return answer

    async def _outcome(self, line: Line, lease: dict[str, Any]) -> dict[str, Any] | None:
        """Make what a lease asks for, and send it; None where it was not taken in."""
        points = [await self._point(line, found["files"]) for found in lease["checkpoints"]]
        weights = lease["weights"]
        point = points[0] if weights is None else merged(points, weights)
        made: dict[str, Any] = {"fence": lease["fence"], "status": "ok"}
        if lease["kind"] == "materialise":
            content = save({"w": point})
            digest = await self._sent(line, content)
            files = [{"name": MODEL, "size": len(content), "digest": digest}]
            return {**made, "files": files} if digest else None
        scores = self.models.scores(point, Split(lease["held_out"]["split"]))
        digest = await self._sent(line, scores.to_bytes())
        given = {**made, "scores": digest, "repeated": digest if lease["repeat"] else None}
        return given if digest else None

    async def _point(self, line: Line, files: list[dict[str, Any]]) -> np.ndarray:
        (file,) = [file for file in files if file["name"] == MODEL]
        if file["digest"] not in self._points:
            answer = await line.ask("GET", file["href"])
            self.tally.count("fetch", answer)
            self._points[file["digest"]] = load(answer.content)["w"]
        return self._points[file["digest"]]

    async def _sent(self, line: Line, content: bytes) -> str | None:
        digest = str(Digest.of_bytes(content))
        answer = await line.ask("PUT", f"/v1/blobs/{digest}", raw=content)
        self.tally.count("scores", answer)
        return digest if answer.status in FINE else None

    def _noted(self, what: str) -> "_Noted":
        return _Noted(self.tally, what)


@dataclass
class _Noted:
    """Notes in a tally what goes wrong in a block, and goes on after it."""

    tally: Tally
    what: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, CutError | UnansweredError):
            self.tally.fail(self.what, error)
            return True
        return False


@asynccontextmanager
async def gathered(doings: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Let all of these go on until the end of the block.

    Raises:
        BaseException: what one of them has raised; none of them should.
    """
    tasks = [asyncio.create_task(doing) for doing in doings]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task


def content_of(seed: int, number: int, size: int) -> tuple[str, list[bytes]]:
    """Return the digest and the blocks of a file that nobody else has; they share their memory."""
    first = hashlib.shake_128(f"{seed}-{number}".encode()).digest(_BLOCK)
    blocks = [first, *[_ZEROS] * (size // _BLOCK - 1)]
    hashed = hashlib.sha256()
    for block in blocks:
        hashed.update(block)
    return f"sha256:{hashed.hexdigest()}", blocks
