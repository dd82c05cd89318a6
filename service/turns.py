"""Turns: requests that go on with one thing come one after the other, and can be told to stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turn:
    """Whose turn it is with one thing."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        """Requests that have the turn or wait for it."""
        self.hurried = 0
        """Those of them that make the one who has it stop."""
        self._going: asyncio.Timeout | None = None

    def hurry(self) -> None:
        """Stop what is going on, if it can be stopped."""
        going, self._going = self._going, None
        if going is not None:
            going.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def stoppable(self) -> AsyncIterator[None]:
        """Do something that ends as soon as somebody else is in a hurry.

        Raises:
            TimeoutError: somebody was.
        """
        async with asyncio.timeout(None) as going:
            self._going = going
            if self.hurried:
                self.hurry()
            try:
                yield
            finally:
                self._going = None


class Turns:
    """Turns by the name of what they are with; for one event loop."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}

    @asynccontextmanager
    async def taken(self, name: str, *, hurry: bool = False) -> AsyncIterator[Turn]:
        """Wait for the turn with something, and have it until the end of the block.

        Args:
            name: Of the thing.
            hurry: Whether to stop who has it now, rather than wait until they are done.
        """
        turn = self._turns.setdefault(name, Turn())
        turn.users += 1
        turn.hurried += hurry
        try:
            if hurry:
                turn.hurry()
            async with turn.lock:
                turn.hurried -= hurry
                hurry = False
                yield turn
        finally:
            turn.hurried -= hurry
            turn.users -= 1
            if not turn.users:
                del self._turns[name]
