"""The areas that are put to torture, in the order of the table.

An area is a module of this package with ``torture(scale, scratch)``, which yields its findings as
it makes them. ``scratch`` is an empty folder of its own on a real disk.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture.finding import Finding, Scale

AREAS = (
    "crashes",
    "power_cuts",
    "bad_disks",
    "transfers",
    "leases",
    "hostile_files",
    "postgres",
    "load",
)

Torture = Callable[[Scale, Path], Iterator[Finding]]


def torture_of(area: str) -> Torture:
    """Return the torture of an area by its name."""
    return importlib.import_module(f"tests.torture.{area}").torture
