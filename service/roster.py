"""The roster: who works for the service, when each was last heard of, and who had better not.

A worker whose device or disk is broken fails at everything, and fast: without the others noticing
it would use up the attempts of every task there is. So one that fails again and again at what
others then can do is in quarantine: it is given no work until some time has passed, or until it
comes back under a new name, as workers that start anew do. Where nobody else is left it is given
work after all, for else the studies would wait for nothing.

Nothing of this is kept over a restart of the service; it is soon learnt again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import Lock

STRIKES = 5
"""Tasks in a row, failed by a worker and then done by another, that lead to quarantine."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is known of one worker; times are on the clock of leases."""

    heard: float
    strikes: int = 0
    until: float | None = None
    """When its quarantine ends; None while it is in none."""


class Roster:
    """Workers by name; safe from several threads.

    Args:
        clock: The clock of leases.
        silence: Seconds after which a worker that is not heard of no longer counts.
        quarantine: Seconds that a quarantine lasts.
    """

    def __init__(self, clock: Callable[[], float], *, silence: float, quarantine: float) -> None:
        self._clock = clock
        self._silence = silence
        self._quarantine = quarantine
        self._known: dict[str, _Standing] = {}
        self._lock = Lock()

    def __contains__(self, worker: str) -> bool:
        return worker in self._known

    def hear(self, worker: str) -> None:
        """Note that a worker has just been heard of."""
        with self._lock:
            now = self._clock()
            known = self._known.get(worker, _Standing(now))
            self._known[worker] = replace(known, heard=now)

    def forget(self, worker: str) -> None:
        """Stop counting a worker that is known to be gone.

        Else there seems to be one more for as long as a lease lasts, and a candidate is proposed
        for it before the one that the dead worker held has been measured.
        """
        with self._lock:
            self._known.pop(worker, None)

    def count(self) -> dict[str, int]:
        """Count the workers that were heard of lately: the ``working``, the ``quarantined``."""
        with self._lock:
            self._drop_the_silent()
            quarantined = sum(s.until is not None for s in self._known.values())
            return {"working": len(self._known) - quarantined, "quarantined": quarantined}

    def has_others(self, worker: str) -> bool:
        """Whether anybody else works here who is not in quarantine."""
        with self._lock:
            self._drop_the_silent()
            return any(s.until is None for name, s in self._known.items() if name != worker)

    def is_quarantined(self, worker: str) -> bool:
        """Whether a worker is in quarantine."""
        with self._lock:
            self._drop_the_silent()
            known = self._known.get(worker)
            return known is not None and known.until is not None

    def pardon(self, worker: str) -> None:
        """End a worker's quarantine, and forget what led to it."""
        with self._lock:
            if worker in self._known:
                self._known[worker] = _Standing(self._known[worker].heard)

    def done(self, worker: str | None, *, where_failed: Iterable[str]) -> tuple[str, ...]:
        """Note that a worker has done a task which others had failed at.

        Returns:
            Who comes into quarantine by this.
        """
        with self._lock:
            fallen = tuple(name for name in set(where_failed) - {worker} if self._struck(name))
            if worker in self._known:
                self._known[worker] = replace(self._known[worker], strikes=0)
            return fallen

    def _struck(self, worker: str) -> bool:
        """Count a strike; return whether it was the last that a worker is allowed."""
        known = self._known.get(worker)
        if known is None or known.until is not None:
            return False
        known = replace(known, strikes=known.strikes + 1)
        falls = known.strikes >= STRIKES
        if falls:
            known = replace(known, until=self._clock() + self._quarantine)
        self._known[worker] = known
        return falls

    def _drop_the_silent(self) -> None:
        """Forget who is gone, and end what quarantine is over."""
        now = self._clock()
        for worker, known in list(self._known.items()):
            if known.heard < now - self._silence:
                del self._known[worker]
            elif known.until is not None and known.until <= now:
                self._known[worker] = _Standing(known.heard)
