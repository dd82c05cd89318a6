"""Merging two 2 GB checkpoints: against the disk, against a copy, and against mergekit.

Everything is measured in the same rounds, one after the other, with the parents dropped from the
page cache before each: what the disk does in one minute it need not do in the next. All our times
hold the digests of the output and its fsync; those of a merge by hand also the verification of both
parents (SHA-256 of every tensor, and the search for NaN), which the merge of checkpoints that are
registered already does not repeat. mergekit verifies nothing; an fsync is done for it and counted.
"""

import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch

from ckptmerge import merge as merge_in_process
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.domain.window import Window
from ckptmerge.workflow.materialise import materialise
from ckptmerge.workflow.register import register_in_order
from tests.benchmarks import comparison, disk
from tests.benchmarks.mergekit import Mergekit, NotInstalledError, installed_mergekit
from tests.benchmarks.neighbours import LlamaLayout, neighbours
from tests.benchmarks.process import Measured, run_measured
from tests.benchmarks.table import Row, median, seconds, verdict

PART = "merge"
ROUNDS = 3
WEIGHTS = (0.4, 0.6)
LAYOUT = LlamaLayout(hidden=2048, intermediate=5632, layers=16, vocabulary=48_000)
"""1.02 billion parameters: 2.04 GB in bfloat16."""

SLOWEST, LARGEST = 2.0, 500e6
"""Targets: times the slower of reading both and writing one; bytes of memory."""


@dataclass
class _Figures:
    """Seconds, processor seconds and peak memory by what was measured, one number a round."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    processor: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    peaks: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def keep(self, name: str, process: Measured) -> None:
        """Keep what a process took beside its time."""
        self.processor[name].append(process.processor)
        self.peaks[name].append(process.peak)


def rows(layout: LlamaLayout = LAYOUT) -> Iterator[Row]:
    """Measure, and yield the rows."""
    try:
        rival: Mergekit | str = installed_mergekit()
    except NotInstalledError as error:
        rival = f"not installed: {error}"
    size = 2 * sum(torch.Size(shape).numel() for shape in layout.shapes().values())
    print(f"writing two checkpoints of {size / 1e9:.2f} GB", flush=True)
    with neighbours(layout, 2, room=5 * size) as parents:
        figures = _Figures()
        window = Window(register_in_order(parents))
        for number in range(1, ROUNDS + 1):
            print(f"merge: round {number} of {ROUNDS}", flush=True)
            _round(window, parents, figures, rival)
        yield from _against_the_disk(figures)
        yield from _against_mergekit(figures, rival)
        if isinstance(rival, Mergekit):
            yield from _correctness(parents, rival)


def _round(
    window: Window, parents: Sequence[Path], figures: _Figures, rival: Mergekit | str
) -> None:
    """Measure everything once, cold, and remove what was written."""
    files = [parent / "model.safetensors" for parent in parents]
    out = parents[0].parent / "written" / "out"

    def timed(name: str, run: Callable[[], float]) -> None:
        disk.evict(files)
        out.parent.mkdir()
        try:
            figures.seconds[name].append(run())
        finally:
            shutil.rmtree(out.parent)

    def process() -> float:
        measured = run_measured(
            [Path(sys.executable).parent / "ckptmerge", "merge", *parents, "--out", out,
             "--weights", ",".join(map(str, WEIGHTS))],
        )  # fmt: skip
        figures.keep("ours", measured)
        return measured.seconds

    def registered() -> float:
        begin = perf_counter()
        materialise(window, MergeWeights(WEIGHTS), out)
        return perf_counter() - begin

    def in_process() -> float:
        begin = perf_counter()
        merge_in_process(parents, weights=WEIGHTS, out=out)
        return perf_counter() - begin

    timed("ours", process)
    timed("in process", in_process)
    timed("registered", registered)
    timed("read both", lambda: disk.read(files))
    timed("write one", lambda: disk.write(out, files[0].stat().st_size))
    timed("copy", lambda: disk.copy(files[0], out))
    if isinstance(rival, Mergekit):
        timed("mergekit", lambda: _mergekit(rival, parents, out, figures))


def _mergekit(rival: Mergekit, parents: Sequence[Path], out: Path, figures: _Figures) -> float:
    measured = rival.merge(parents, WEIGHTS, out, dtype="float32")
    figures.keep("mergekit", measured)
    begin = perf_counter()
    disk.flush(out)
    return measured.seconds + perf_counter() - begin


def _against_the_disk(figures: _Figures) -> Iterator[Row]:
    """Hold our times against what the disk takes for the same bytes."""
    reading, writing = figures.seconds["read both"], figures.seconds["write one"]
    slower = max(median(reading), median(writing))
    for name, what, aimed in (
        ("registered", "read, merged, digested, written, synced", True),
        ("in process", "the same with both verified first, `merge()`", True),
        ("ours", "`ckptmerge merge`, from its start to its end", False),
    ):
        own = figures.seconds[name]
        yield Row(
            part=PART,
            what=f"two 2 GB checkpoints, cold: {what}",
            ours=seconds(own),
            against=f"slower of read both {seconds(reading)}, write one {seconds(writing)}",
            ratio=f"{median(own) / slower:.2f}",
            target=f"<= {SLOWEST:g}" if aimed else "",
            met=verdict(median(own) <= SLOWEST * slower) if aimed else "",
        )
    own, copy = figures.seconds["ours"], figures.seconds["copy"]
    yield Row(
        part=PART,
        what="the same, against copying one parent",
        ours=seconds(own),
        against=f"cp with fsync {seconds(copy)}",
        ratio=f"{median(own) / median(copy):.2f}",
    )


def _against_mergekit(figures: _Figures, rival: Mergekit | str) -> Iterator[Row]:
    """Hold time and memory against mergekit's, or say why that cannot be done."""
    peak, known = max(figures.peaks["ours"]), isinstance(rival, Mergekit)
    theirs = max(figures.peaks["mergekit"], default=0)
    for what, figure in (
        ("the same, against mergekit (linear, in float32, written in bfloat16)", figures.seconds),
        ("the same in processor time, which a busy machine changes less", figures.processor),
    ):
        own, other = figure["ours"], figure["mergekit"]
        yield Row(
            part=PART,
            what=what,
            ours=seconds(own),
            against=f"mergekit {seconds(other)}" if known else str(rival),
            ratio=f"{median(own) / median(other):.2f}" if known else "",
        )
    yield Row(
        part=PART,
        what="peak memory of the process",
        ours=f"{peak / 1e6:.0f} MB",
        against=f"mergekit {theirs / 1e6:.0f} MB" if known else str(rival),
        ratio=f"{peak / theirs:.2f}" if known else "",
        target=f"<= {LARGEST / 1e6:.0f} MB",
        met=verdict(peak <= LARGEST),
    )


def _correctness(parents: Sequence[Path], rival: Mergekit) -> Iterator[Row]:
    """Compare our numbers with mergekit's, and both with the exact sum."""
    ours, theirs = (parents[0].parent / name for name in ("ours", "theirs"))
    merge_in_process(parents, weights=WEIGHTS, out=ours)
    rival.merge(parents, WEIGHTS, theirs, dtype="float32")
    found = comparison.compare(parents, WEIGHTS, ours, theirs)
    yield Row(
        part=PART,
        what="numbers that differ from mergekit's (told `out_dtype: bfloat16`; else it is float32)",
        ours=f"{found.different:.3%}, by at most {found.steps} ulp where nothing cancels",
        against="0",
        target="<= 1 ulp",
        met=verdict(found.steps <= 1),
    )
    yield Row(
        part=PART,
        what="numbers that are not the exact sum rounded once to bfloat16",
        ours=f"{found.ours_inexact:.3%}",
        against=f"mergekit {found.theirs_inexact:.3%}",
        ratio=f"{found.ours_inexact / found.theirs_inexact:.2f}" if found.theirs_inexact else "",
    )
