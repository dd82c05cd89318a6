"""Passes to the best: our search against what people do instead, on a really trained run.

Every loss is a real evaluation of the demo's model on the same documents. A case is a window (three
windows end at the run's last three checkpoints) and a seed; figures are medians over the cases.
Regret is what the best candidate so far lies above the lowest loss that anyone found there, sought
on from the best of all by sequential quadratic programming.
"""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from ckptmerge.domain.space import SpaceKind
from ckptmerge.domain.study import Study
from ckptmerge.workflow.open_studies import open_study
from ckptmerge.workflow.register import register_in_order
from tests.benchmarks import strategies
from tests.benchmarks.landscape import Landscape
from tests.benchmarks.table import Row, median, verdict
from tests.benchmarks.trained import trained_run

PART = "search"
BUDGET = 24
SHOWN = (8, 16, 24)
"""Passes after which regrets are shown."""

WINDOWS, SEEDS = 3, 2
SIZES: Mapping[SpaceKind, int] = {"pair": 2, "simplex": 8}
DOCUMENTS = 40
"""Search documents a domain, 120 together: a real search takes more, and has a lower floor."""

RIVALS: Mapping[SpaceKind, Mapping[str, strategies.Strategy]] = {
    "pair": {
        "3-point parabola, repeated": strategies.parabola,
        "random": strategies.dirichlet,
        "scrambled Sobol": strategies.sobol,
        "uniform lengths": strategies.uniform_lengths,
    },
    "simplex": {
        "random Dirichlet": strategies.dirichlet,
        "scrambled Sobol": strategies.sobol,
        "uniform lengths": strategies.uniform_lengths,
    },
}

OURS = "ours"


@dataclass(frozen=True)
class Task:
    """A window and a space over it."""

    folders: tuple[Path, ...]
    held_out: Path
    space: SpaceKind


@dataclass(frozen=True)
class Case:
    """One window searched with one seed."""

    space: SpaceKind
    best: Mapping[str, Sequence[float]]
    """The best loss in bits per byte, by strategy, after each pass."""
    lowest: float
    """The lowest loss that anyone found in this window."""
    floor: float
    """What these documents can tell apart, in bits per byte."""
    stopped: int | None
    """Passes after which our search would have stopped by itself."""

    def regret(self, strategy: str, passes: int) -> float:
        """Return how far a strategy's best after so many passes lies above the lowest loss."""
        return self.best[strategy][passes - 1] - self.lowest

    def passes(self, strategy: str) -> float:
        """Return how many passes a strategy needs to come within the floor; infinite: never."""
        counts = range(1, BUDGET + 1)
        return next((n for n in counts if self.regret(strategy, n) <= self.floor), float("inf"))


def rows() -> Iterator[Row]:
    """Measure, and yield the rows."""
    run = trained_run()
    tasks = [
        Task(run.checkpoints[last - size : last], run.held_out, space)
        for space, size in SIZES.items()
        for last in range(len(run.checkpoints), len(run.checkpoints) - WINDOWS, -1)
    ]
    cases: list[Case] = []
    # Losses do not depend on what else runs, so this part may use every core.
    workers = min(len(tasks), len(os.sched_getaffinity(0)))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _one_thread) as pool:
        for number, done in enumerate(pool.map(measured, reversed(tasks)), start=1):
            print(f"search: window {number} of {len(tasks)}", flush=True)
            cases += done
    for space in SIZES:
        yield from _rows(space, [case for case in cases if case.space == space])


def measured(task: Task) -> list[Case]:
    """Run every strategy on one window, each seed for itself."""
    landscape = Landscape(task.folders, task.held_out, documents=DOCUMENTS)
    checkpoints = register_in_order(task.folders)
    studies = [
        open_study(checkpoints, space=task.space, budget=BUDGET, seed=seed) for seed in range(SEEDS)
    ]
    searched = [_searched(study, landscape) for study in studies]
    lowest = landscape.lowest(studies[0].spec.space)
    return [
        Case(task.space, best, lowest, proposer.floor, proposer.stopped)
        for best, proposer in searched
    ]


def _searched(
    study: Study, landscape: Landscape
) -> tuple[dict[str, list[float]], strategies.Patient]:
    """Run every strategy; return the best loss after each pass, and our proposer."""
    proposer = strategies.Patient()
    candidates = {
        name: rival(study, landscape) for name, rival in RIVALS[study.spec.space.kind].items()
    }
    candidates[OURS] = strategies.ours(study, landscape, proposer)
    best = {name: strategies.losses(c, landscape, BUDGET) for name, c in candidates.items()}
    return best, proposer


def _rows(space: SpaceKind, cases: Sequence[Case]) -> Iterator[Row]:
    """Hold our regrets and passes against each rival's."""
    floor = median([case.floor for case in cases])
    own = {name: _medians(cases, name) for name in (OURS, *RIVALS[space])}
    for rival in RIVALS[space]:
        mine, theirs = own[OURS][BUDGET], own[rival][BUDGET]
        yield Row(
            part=PART,
            what=(
                f"{space} of {SIZES[space]}: regret after {', '.join(map(str, SHOWN))} passes, "
                f"1e-6 bits per byte (floor {1e6 * floor:.0f})"
            ),
            ours=_shown(own[OURS]),
            against=f"{rival} {_shown(own[rival])}",
            ratio=f"{mine / theirs:.2g}" if max(mine, theirs) > floor else "both within",
            target="<= rival or floor",
            met=verdict(mine <= max(theirs, floor)),
        )
    needed = {name: _count(median([case.passes(name) for case in cases])) for name in own}
    stops = _count(median([float(case.stopped or BUDGET) for case in cases]))
    yield Row(
        part=PART,
        what=f"{space} of {SIZES[space]}: passes until within the floor (ours stops after {stops})",
        ours=needed[OURS],
        against=", ".join(f"{rival} {needed[rival]}" for rival in RIVALS[space]),
    )


def _medians(cases: Sequence[Case], strategy: str) -> dict[int, float]:
    return {n: median([case.regret(strategy, n) for case in cases]) for n in SHOWN}


def _shown(regrets: Mapping[int, float]) -> str:
    return " / ".join(f"{1e6 * regret:.0f}" for regret in regrets.values())


def _count(count: float) -> str:
    return f"more than {BUDGET}" if count > BUDGET else f"{count:g}"


def _one_thread() -> None:
    torch.set_num_threads(1)
