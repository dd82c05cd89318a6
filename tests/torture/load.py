"""Load: many at once, more than can be, an end in the middle of it, and a loop that stays free."""

from collections.abc import Iterator
from pathlib import Path

from tests.torture.endings import endings
from tests.torture.finding import Finding, Scale
from tests.torture.large_fit import large_fit
from tests.torture.overload import overload
from tests.torture.rush import rush


def torture(scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Put the service under load in every way."""
    yield from rush(scale, scratch / "rush")
    yield from overload(scale, scratch / "overload")
    yield from endings(scale, scratch / "endings")
    yield from large_fit(scale, scratch / "fit")
