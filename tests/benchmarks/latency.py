"""Latencies: their median and what one request in a hundred exceeds."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar

from tests.benchmarks.table import median

T = TypeVar("T")


def timed(into: list[float], run: Callable[[], T]) -> T:
    """Run something, and keep the seconds that it took."""
    begin = perf_counter()
    result = run()
    into.append(perf_counter() - begin)
    return result


def p99(values: Sequence[float]) -> float:
    """Return the smallest value that no more than a hundredth of the values exceed."""
    ordered = sorted(values)
    return ordered[len(ordered) - 1 - len(ordered) // 100]


def latencies(values: Sequence[float]) -> str:
    """Write median and 99th percentile, and of how many."""
    return f"p50 {_short(median(values))}, p99 {_short(p99(values))} of {len(values)}"


def _short(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
