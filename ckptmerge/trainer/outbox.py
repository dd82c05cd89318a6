"""Outbox: what is to be sent, oldest first, by a thread that sits out a service's absences."""

import logging
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

from ckptmerge.errors import CkptmergeError, ServiceError
from ckptmerge.trainer.hold import HeldCheckpoint

logger = logging.getLogger("ckptmerge.trainer")

_PASSING = frozenset({None, 429, 500, 502, 503, 504})
"""Statuses after which another try may go well; None is no answer at all."""

_FIRST_BREAK = 5.0
_LONGEST_BREAK = 60.0
"""Seconds between two tries while a service is away; each break is twice as long as the last."""


class Outbox:
    """Delivers held checkpoints in order; what cannot be delivered is dropped and said so.

    Args:
        deliver: Sends one, or raises.
        limit: How many may wait; one more pushes out the oldest.
        first_break: Seconds of the first break after the service was found to be away.
    """

    def __init__(
        self,
        deliver: Callable[[HeldCheckpoint], None],
        *,
        limit: int,
        first_break: float = _FIRST_BREAK,
    ) -> None:
        self._deliver = deliver
        self._limit = limit
        self._first_break = first_break
        self._waiting: deque[HeldCheckpoint] = deque()
        self._changed = Condition()
        self._sending: HeldCheckpoint | None = None
        self._closing = False
        self._abandoned = False
        self._thread = Thread(target=self._run, name="ckptmerge-outbox", daemon=True)
        self._thread.start()

    def put(self, held: HeldCheckpoint) -> None:
        """Take one more, and never wait."""
        with self._changed:
            self._waiting.append(held)
            dropped = self._waiting.popleft() if len(self._waiting) > self._limit else None
            self._changed.notify()
        if dropped is not None:
            self._drop(dropped, "the queue is full: the service is away, or slower than training")

    def close(self, timeout: float) -> None:
        """Deliver what waits, as far as the service is there, for at most ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            left = [*([self._sending] if self._sending else []), *self._waiting]
            self._waiting.clear()
        for held in left:
            self._drop(held, f"training ended, and {timeout:g} s were not enough")
        self._abandoned = True

    def _run(self) -> None:
        failures = 0
        while (held := self._next()) is not None:
            failures = 0 if self._try(held) else failures + 1
            if failures:
                self._rest(failures)

    def _next(self) -> HeldCheckpoint | None:
        with self._changed:
            self._sending = None
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._sending = self._waiting.popleft() if self._waiting else None
            return self._sending

    def _try(self, held: HeldCheckpoint) -> bool:
        """Deliver one; False where the service is away, and it waits again."""
        try:
            self._deliver(held)
        except ServiceError as error:
            if error.status in _PASSING and self._put_back(held):
                logger.warning("ckptmerge: step %d waits: %s", held.step, error)
                return False
            self._drop(held, str(error))
        except (CkptmergeError, OSError) as error:
            self._drop(held, str(error))
        except Exception:
            logger.exception("ckptmerge: a fault of ours, which training need not care about")
            self._drop(held, "an error that nobody foresaw")
        else:
            held.remove()
        return True

    def _put_back(self, held: HeldCheckpoint) -> bool:
        """Let one wait again before all others, unless newer ones took its place, or time is up."""
        with self._changed:
            there_is_room = len(self._waiting) < self._limit and not self._closing
            if there_is_room:
                self._waiting.appendleft(held)
            return there_is_room

    def _rest(self, failures: int) -> None:
        seconds = min(_LONGEST_BREAK, self._first_break * 2 ** (failures - 1))
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=seconds)

    def _drop(self, held: HeldCheckpoint, reason: str) -> None:
        if self._abandoned:
            return  # close has said so
        logger.warning(
            "ckptmerge: the checkpoint of step %d was not sent: %s. If the trainer keeps it, send "
            "it later with `ckptmerge push`", held.step, reason,
        )  # fmt: skip
        held.remove()
