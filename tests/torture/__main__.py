"""``python -m tests.torture [AREA...]``: break what can be broken, and print one table at the end.

Exits with 1 where a promise does not hold, and with 77 where an area could not be tried. Run it as
root, on a machine that does nothing else: loop devices, mounts and traced processes are its own.
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from tests.torture.areas import AREAS, torture_of
from tests.torture.finding import NOT_TRIED, CannotTryError, Finding, Scale, as_markdown

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
    untried: list[str] = []
    for area in AREAS:
        if area in chosen.areas or "all" in chosen.areas:
            try:
                for finding in _tortured(area, scale):
                    print(finding, flush=True)
                    findings.append(finding)
            except CannotTryError as reason:
                untried.append(f"{area} could not be tried: {reason}")
    minutes = (time.perf_counter() - begin) / 60
    print(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, {minutes:.0f} minutes\n")
    print(as_markdown(findings), *untried, sep="\n")
    if not all(finding.held for finding in findings):
        return 1
    return NOT_TRIED if untried else 0


def _tortured(area: str, scale: Scale) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(
        prefix=f"torture-{area}-", dir=Path.cwd() / ".cache"
    ) as folder:
        try:
            yield from torture_of(area)(scale, Path(folder))
        except CannotTryError:
            raise
        except Exception as error:  # noqa: BLE001 - what breaks the torture itself is a finding
            traceback.print_exc()
            figure = f"{type(error).__name__}: {error}"
            yield Finding(area=area, promise="is tried to its end", figure=figure, held=False)


def _end(number: int, _frame: object) -> NoReturn:
    print("ended by a signal: nothing is claimed", file=sys.stderr)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
