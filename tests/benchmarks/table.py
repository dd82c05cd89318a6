"""The one table: what was measured, against what, and whether it met its target."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

Verdict = Literal["met", "NOT MET", ""]

HEADER = ("part", "what", "ours", "against", "ratio", "target", "met")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of ours beside the rival or the limit it is held against."""

    part: str
    what: str
    ours: str
    against: str = ""
    """The rival's figure, or the measured limit, with its name."""
    ratio: str = ""
    """Ours over theirs; below one is better unless ``what`` says otherwise."""
    target: str = ""
    met: Verdict = ""
    """Empty where no target is set: the figure is shown and claims nothing."""


def verdict(met: bool) -> Verdict:
    """Return the table's word for a target that was met or missed."""
    return "met" if met else "NOT MET"


def seconds(values: Sequence[float]) -> str:
    """Write a median of times with its range: on a shared machine the range is the news."""
    middle = median(values)
    digits = 1 if middle >= 1 else 4
    return f"{middle:.{digits}f} s ({min(values):.{digits}f} to {max(values):.{digits}f})"


def median(values: Sequence[float]) -> float:
    """Return the middle value; of an even number, the mean of the middle two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def as_markdown(rows: Sequence[Row]) -> str:
    """Write the table so that it reads in a terminal and renders in a document."""
    cells = [HEADER, *(astuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
