"""Progress: what a long job tells whoever waits for it."""

from typing import Protocol


class Progress(Protocol):
    """Hears which stage a job is in and how far; one stage at a time."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` units (bytes, passes or passages)."""
        ...

    def advance(self, amount: int) -> None:
        """Count ``amount`` more units of the stage."""
        ...


class Silent:
    """Tells nobody."""

    def stage(self, name: str, total: int) -> None:
        """Ignore the stage."""

    def advance(self, amount: int) -> None:
        """Ignore the amount."""
