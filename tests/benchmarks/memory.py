"""The most memory that a whole search, certificate and all, ever holds."""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.process import run_measured
from tests.benchmarks.table import Row
from tests.benchmarks.trained import trained_run

PART = "memory"
WINDOW, BUDGET = 8, 20
"""Budget: the initial design of a window of eight takes 15 passes, so the proposer works too."""


def rows() -> Iterator[Row]:
    """Measure, and yield the row."""
    print("memory: a whole search on the demo's run", flush=True)
    run, command = trained_run(), Path(sys.executable).parent / "ckptmerge"
    window = run.checkpoints[-WINDOW:]
    with TemporaryDirectory(prefix="ckptmerge-benchmark-") as holder:
        # Looks at the documents are logged in the temporary folder: a benchmark is no claim.
        looks = ["--held-out", run.held_out, "--looks", Path(holder) / "looks.jsonl"]
        searched = run_measured(
            [command, "optimize", *window, *looks, "--budget", str(BUDGET),
             "--out", Path(holder) / "merged"],
        )  # fmt: skip
        scored = run_measured([command, "evaluate", window[-1], *looks])
    size = sum(file.stat().st_size for folder in window for file in folder.glob("*.safetensors"))
    yield Row(
        part=PART,
        what=(
            f"peak of `ckptmerge optimize` and its proposer, {BUDGET} passes over {WINDOW} "
            f"checkpoints of together {size / 1e6:.0f} MB ({searched.seconds:.0f} s)"
        ),
        ours=f"{searched.peak / 1e6:.0f} MB",
        against=f"`ckptmerge evaluate` of one of them {scored.peak / 1e6:.0f} MB",
        ratio=f"{searched.peak / scored.peak:.2f}",
    )
