"""``python -m tests.torture [AREA...]``: break what can be broken, and print one table at the end.

Exits with 1 where a promise does not hold or an area could not be tried. Run it as root, on a
machine that does nothing else: loop devices, mounts and traced processes are its own.
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from tests.torture.areas import AREAS, torture_of
from tests.torture.finding import Finding, Scale, as_markdown

CACHE = Path(__file__).parents[2] / ".cache"


def main(arguments: Sequence[str] | None = None) -> int:
    """Torture the chosen areas, all of them by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("areas", nargs="*", choices=(*AREAS, "all"), default="all", metavar="AREA")
    parser.add_argument("--short", action="store_true", help="as much as every run of CI does")
    chosen = parser.parse_args(arguments)
    # An exception on the way out, so that mounts and processes are taken down.
    signal.signal(signal.SIGTERM, _end)
    scale = Scale.SHORT if chosen.short else Scale.FULL
    begin = time.perf_counter()
    findings: list[Finding] = []
    for area in AREAS:
        if area in chosen.areas or "all" in chosen.areas:
            for finding in _tortured(area, scale):
                print(finding, flush=True)
                findings.append(finding)
    minutes = (time.perf_counter() - begin) / 60
    print(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, {minutes:.0f} minutes\n")
    print(as_markdown(findings))
    return int(not all(finding.held for finding in findings))


def _tortured(area: str, scale: Scale) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(
        prefix=f"torture-{area}-", dir=Path.cwd() / ".cache"
    ) as folder:
        try:
            yield from torture_of(area)(scale, Path(folder))
        except Exception as error:  # noqa: BLE001 - what cannot be tried is a finding, not the end
            yield Finding(
                area=area,
                promise="can be tried",
                figure=f"{type(error).__name__}: {error}",
                held=False,
            )


def _end(number: int, _frame: object) -> NoReturn:
    print("ended by a signal: nothing is claimed", file=sys.stderr)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
