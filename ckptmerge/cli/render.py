"""What the command line shows: tables for people, JSON for programs, bars on a terminal."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ckptmerge.wire.best import Best, DomainPart, Gain, Score

WIDE = 160
"""Columns assumed where there is no terminal to ask: a table in a log must not wrap."""

out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: object) -> None:
    """Print one JSON document, strict enough for any parser."""
    out.out(json.dumps(value, indent=2, allow_nan=False), highlight=False)


class Bars:
    """Progress bars with the time left, one a stage, on standard error."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        """Begin a bar; the one before is done."""
        self._finish()
        self._task = self._bars.add_task(name, total=max(total, 1))
        if not err.is_terminal:
            err.print(f"{name} …")

    def advance(self, amount: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task, amount)

    def _finish(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[self._task]
            self._bars.update(self._task, total=task.completed or 1, completed=task.completed or 1)


@contextmanager
def bars() -> Iterator[Bars]:
    """Show bars while a job runs; where there is no terminal, a line for each stage."""
    columns = (
        TextColumn("{task.description:<24}"), BarColumn(bar_width=28), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        yield Bars(progress)


def show_best(best: Best) -> None:
    """Print what is best, what it was compared with, and on which documents."""
    out.print(f"[bold]{'promoted' if best.promoted else 'not promoted'}[/bold]: {best.reason}")
    if best.promoted and best.weights is not None:
        shown = [f"step {w.step}: {w.weight:+.4f}" for w in best.weights if w.weight]
        out.print("weights  " + "  ".join(shown))
    if best.score is not None:
        out.print(_scores(best, best.score))
    for gain in best.gains:
        out.print(f"gain over {gain.against}: {_gain(gain)}")
        if len(gain.domains) > 1:
            out.print("  " + ", ".join(map(_part, gain.domains, gain.domains.values())))
    if best.passes is not None:
        out.print(
            f"forward passes: {best.passes.search} search, {best.passes.certify} certify, "
            f"{best.passes.audit} audit; the search ended because {best.stopped}"
        )


def score_table(rows: dict[str, Score], title: str) -> Table:
    """Lay scores out by model and domain, in bits per byte with their intervals."""
    domains = list(next(iter(rows.values())).domains)
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("model")
    for column in ["all", *(domains if len(domains) > 1 else [])]:
        table.add_column(column, justify="right")
    for name, score in rows.items():
        cells = [f"{score.mean:.4f} {_bounds(score.low, score.high, '.4f')}"]
        if len(domains) > 1:
            cells += [_cell(score.domains[domain]) for domain in domains]
        table.add_row(name, *cells)
    return table


def _scores(best: Best, score: Score) -> Table:
    rows = dict(best.baselines)
    if best.promoted:
        rows = {"promoted merge": score} | rows
    title = f"bits per byte on the {score.split} split ({score.documents} documents)"
    return score_table(dict(sorted(rows.items(), key=lambda row: row[1].mean)), title)


def _gain(gain: Gain) -> str:
    return (
        f"{gain.mean:+.4f} bits per byte, {gain.level:.0%} interval "
        f"{_bounds(gain.low, gain.high, '+.4f')} on {gain.documents} {gain.split} documents"
    )


def _bounds(low: float | None, high: float | None, form: str) -> str:
    if low is None or high is None:
        return "[not bounded]"
    return f"[{low:{form}}, {high:{form}}]"


def _cell(part: DomainPart) -> str:
    """Write a domain's mean with half the width of its interval."""
    if part.low is None or part.high is None:
        return f"{part.mean:.3f}"
    return f"{part.mean:.3f} ±{(part.high - part.low) / 2:.3f}"


def _part(domain: str, part: DomainPart) -> str:
    few = " (too few documents)" if part.too_few else ""
    return f"{domain} {part.mean:+.4f} {_bounds(part.low, part.high, '+.4f')}{few}"
