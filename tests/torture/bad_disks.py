"""Disks that are full or fail, and clocks that jump: said honestly, and over when they are over."""

from collections.abc import Iterator
from pathlib import Path

from tests.torture.clock_jumps import jump_clocks
from tests.torture.failing_disks import fail_calls
from tests.torture.finding import Finding, Scale
from tests.torture.full_disks import fill_under_a_merge, fill_under_uploads


def torture(scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Let disks fail and fill up, and clocks jump."""
    yield from jump_clocks(scratch / "clocks")
    yield from fill_under_uploads(scratch / "uploads")
    yield from fill_under_a_merge(scratch / "merges")
    yield from fail_calls(scale, scratch / "failing")
