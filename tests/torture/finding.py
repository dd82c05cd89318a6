"""What a torture run says: for each promise, the figure that was found, and whether it held."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

HEADER = ("area", "promise", "figure", "verdict")


class Scale(Enum):
    """How much of a torture is run."""

    SHORT = "short"
    """A part of a minute, for every run of CI."""
    FULL = "full"
    """As much as fits into an hour with the others: `make torture`."""

    def pick(self, *, short: int, full: int) -> int:
        """Return how many rounds of something this scale asks for."""
        return short if self is Scale.SHORT else full


NOT_TRIED = 77
"""Exit code where an area could not be tried, and nothing that was tried is broken."""


class CannotTryError(Exception):
    """What an area needs is not on this machine; the message names what to install, or to be."""


def require_program(name: str) -> str:
    """Return the path of a program that an area cannot do without.

    Raises:
        CannotTryError: it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise CannotTryError(f"{name} is not installed here (`.ci/run` installs it)")
    return path


def require_root() -> None:
    """Check that mounts and loop devices may be made.

    Raises:
        CannotTryError: they may not.
    """
    if os.geteuid() != 0:
        raise CannotTryError("only root may mount what this breaks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One promise, and what became of it under torture."""

    area: str
    promise: str
    """What is promised, with its number: "0 acknowledged objects lost in 50 power cuts"."""
    figure: str
    """What was found, with its number, whether it held or not."""
    held: bool

    def __str__(self) -> str:
        """Write the finding as one line of a log."""
        return f"{'held' if self.held else 'BROKEN'}: {self.area}: {self.promise}: {self.figure}"


def as_markdown(findings: Sequence[Finding]) -> str:
    """Write the one table, so that it reads in a terminal and renders in a document."""
    rows = [
        HEADER,
        *((f.area, f.promise, f.figure, "held" if f.held else "BROKEN") for f in findings),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    ]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)
