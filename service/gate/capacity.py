"""How many requests are answered at once, by kind; whoever comes beyond that is sent away at once.

A service that takes everything in answers nobody in time. Kinds are counted apart, so that none
keeps out the others: workers wait by the hundred and cost nothing, a transfer takes as long as the
line of its client, and everything else is over in milliseconds.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.gate.doorkeeper import Refusal
from service.gate.traffic import Traffic
from service.problems import DRAINING, OVERLOADED
from service.settings import Limits

ALWAYS = frozenset({"/healthz", "/readyz"})
"""Answered whatever there is to do: who is not heard of is taken for dead, and started anew."""

COME_AGAIN = 2
"""Seconds after which whoever was sent away is asked to come again."""

_LONG = (Traffic.UPLOAD, Traffic.DOWNLOAD, Traffic.WAITING)
"""What is not begun any more where there is little time left."""


class Capacity:
    """Counts the requests that are being answered; for one event loop.

    Args:
        limits: How many there may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = {
            Traffic.UPLOAD: limits.uploads_at_once,
            Traffic.DOWNLOAD: limits.downloads_at_once,
            Traffic.WAITING: limits.waiting_at_once,
            Traffic.SMALL: limits.requests_at_once,
        }
        self._taken = Counter[Traffic]()
        self._draining = False
        self._still = asyncio.Event()
        self._still.set()

    async def transferred(self) -> None:
        """Wait until no file is on its way."""
        await self._still.wait()

    def drain(self) -> None:
        """Begin nothing more that takes long: the service is about to end."""
        self._draining = True

    def refusal(self, traffic: Traffic, path: str) -> Refusal | None:
        """Say why another request of this kind is not taken in; None where it is."""
        if path in ALWAYS:
            return None
        again = {"Retry-After": str(COME_AGAIN)}
        if self._draining and traffic in _LONG:
            return Refusal(
                DRAINING, "the service is about to stop; try again, it may be back by then", again
            )
        if self._taken[traffic] >= self._most[traffic]:
            return Refusal(
                OVERLOADED,
                f"{self._most[traffic]} {traffic} are being answered, which is as many as there "
                f"may be at once; try again in {COME_AGAIN} s",
                again,
            )
        return None

    @contextmanager
    def taken(self, traffic: Traffic) -> Iterator[None]:
        """Count a request until the end of the block."""
        self._count(traffic, 1)
        try:
            yield
        finally:
            self._count(traffic, -1)

    def _count(self, traffic: Traffic, more: int) -> None:
        self._taken[traffic] += more
        if self._taken[Traffic.UPLOAD] or self._taken[Traffic.DOWNLOAD]:
            self._still.clear()
        else:
            self._still.set()
