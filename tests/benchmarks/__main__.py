"""``python -m tests.benchmarks [PART...]``: measure, and print one table at the end.

Exits with 1 where a target is missed. Run it on a machine that does nothing else.
"""

import argparse
import importlib
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from tests.benchmarks.table import Row, as_markdown

PARTS = ("merge", "swap", "memory", "search", "service")
"""In this order; each is a module with ``rows()``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts, all of them by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, "all"), default="all", metavar="PART")
    chosen = parser.parse_args(arguments).parts
    # An exception on the way out, so that gigabytes of checkpoints are removed.
    signal.signal(signal.SIGTERM, _end)
    begin = time.perf_counter()
    measured: list[Row] = []
    for part in PARTS:
        if part in chosen or "all" in chosen:
            measured += importlib.import_module(f"tests.benchmarks.{part}").rows()
    print(f"\n{_machine()}, {(time.perf_counter() - begin) / 60:.0f} minutes\n")
    print(as_markdown(measured))
    return int(any(row.met == "NOT MET" for row in measured))


def _end(number: int, _frame: object) -> NoReturn:
    print("ended by a signal: nothing is claimed", file=sys.stderr)
    sys.exit(128 + number)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GB of memory, {platform.machine()}, "
        f"Python {platform.python_version()}, load {load:.1f} at the end"
    )


if __name__ == "__main__":
    sys.exit(main())
