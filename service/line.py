"""The line of those who wait for work: one is called at a time, the one who has waited longest.

To wake all of them whenever there may be work would have hundreds look for the one task that there
is. Here whoever was called looks, and says whether there is more; then the next one is called, and
otherwise nobody.
"""

import asyncio
from types import TracebackType
from typing import Self


class Line:
    """Places of those who wait, in order; for one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[Place, None] = {}
        """In the order in which they came."""
        self._due: dict[Place, None] = {}
        """Those of them who are still to be called in this round."""
        self._called: Place | None = None
        """Who looks for work, or is about to."""
        self._again = False
        """Whether more may have come since they were called."""

    def place(self) -> "Place":
        """Return a new place at the end; it is in the line for as long as it is entered."""
        return Place(self)

    def call(self) -> None:
        """Say that there may be work: everybody is called in turn, for as long as there is."""
        if self._called is not None:
            self._again = True
            return
        self._due = dict(self._waiting)
        self._call_next()

    def call_all(self) -> None:
        """Call everybody at once: nobody is to wait any more."""
        for place in self._waiting:
            place.hear()

    def join(self, place: "Place") -> None:
        """Let a place stand at the end."""
        self._waiting[place] = None

    def leave(self, place: "Place") -> None:
        """Let a place go; one that was called and has not looked leaves the work to the next."""
        self._waiting.pop(place, None)
        self._due.pop(place, None)
        self.passed(place, more=True)

    def passed(self, place: "Place", *, more: bool) -> None:
        """Hear from a place that was called; from others this changes nothing."""
        if self._called is not place:
            return
        self._called = None
        if self._again:
            self._again = False
            self.call()
        elif more:
            self._call_next()
        else:
            self._due.clear()

    def _call_next(self) -> None:
        if self._due:
            self._called = next(iter(self._due))
            del self._due[self._called]
            self._called.hear()


class Place:
    """One who waits; a context manager.

    Args:
        line: In which.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._heard = asyncio.Event()
        self._answering = False

    def __enter__(self) -> Self:
        self._line.join(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.leave(self)

    async def called(self, seconds: float) -> bool:
        """Wait to be called, so many seconds at most; return whether that was so."""
        try:
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        except TimeoutError:
            return False
        self._heard.clear()
        self._answering = True
        return True

    def looked(self, *, more: bool) -> None:
        """Say after every look whether there is work left, be it for somebody else.

        A look that began before the call may have missed what the call was about, and does not
        answer it.
        """
        if self._answering:
            self._answering = False
            self._line.passed(self, more=more)

    def hear(self) -> None:
        """Be called."""
        self._heard.set()
