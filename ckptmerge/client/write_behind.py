"""Bytes that are put away on a thread of their own while the next ones come over the network."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self

BLOCK = 2**20
"""Bytes put away at once. A socket brings a part of that, and each hand-over costs a switch."""

_BLOCKS = 3
"""One that is being filled, one that is being put away, and one that waits between the two."""


class WriteBehind:
    """Collects what comes to blocks and has them put away, in order; a context manager.

    Hashing and writing let go of the interpreter, so a download takes as long as the slower of
    its halves, and not as both. When the ``with`` is over, also by an error, all that came has
    been put away, or the error is raised of the block that could not be. Blocks are filled again
    and again: new memory for each would cost as much as copying to it.

    Args:
        put_away: Takes the next bytes, which are its own until it returns; called from one thread.
    """

    def __init__(self, put_away: Callable[[memoryview], None]) -> None:
        self._put_away = put_away
        self._failure: BaseException | None = None
        self._full: SimpleQueue[memoryview | None] = SimpleQueue()
        self._empty: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_BLOCKS):
            self._empty.put(memoryview(bytearray(BLOCK)))
        self._block = self._empty.get()
        self._filled = 0
        self._thread = Thread(target=self._work, name="ckptmerge-write-behind", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def take(self, chunk: bytes) -> None:
        """Take the next bytes, and wait where too many have not been put away yet.

        Raises:
            Exception: whatever putting earlier ones away has raised.
        """
        rest = memoryview(chunk)
        while rest:
            end = min(self._filled + len(rest), BLOCK)
            self._block[self._filled : end] = rest[: end - self._filled]
            rest, self._filled = rest[end - self._filled :], end
            if end == BLOCK:
                self._hand_over()
                self._block = self._empty.get()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._full.put(self._block[: self._filled])
        self._full.put(None)
        self._thread.join()
        if self._failure is not None and self._failure is not error:
            raise self._failure

    def _hand_over(self) -> None:
        self._full.put(self._block)
        self._filled = 0
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (block := self._full.get()) is not None:
            try:
                # After one that could not be put away the next would lie in the wrong place.
                if self._failure is None:
                    self._put_away(block)
            except BaseException as error:  # noqa: BLE001 - raised where it can be dealt with
                self._failure = error
            self._empty.put(block)
