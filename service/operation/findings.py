"""What a look at the machine can find."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It will run, and may disappoint."""
    FAIL = "fail"
    """It will not run, or lose what it was given."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    said: str
    """What was found."""
    remedy: str | None = None
    """What to do about it; None where nothing is wrong."""
