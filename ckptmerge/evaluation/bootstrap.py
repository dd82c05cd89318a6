"""Studentised bootstrap of a weighted sum of ratios, resampled by unit within domains.

Bits per byte is a ratio of sums over documents of very different lengths, so its error is the
error of a ratio, and documents of one group are not independent, so the unit u that is resampled
is the group. Notation, for a domain with units u = 1..m:

    y_u, b_u   bits (of one model, or saved by one against another) and UTF-8 bytes of unit u
    r          Σ y / Σ b
    e_u        y_u - r b_u, the linearised residual
    v          m/(m - 1) Σ e² / (Σ b)², the variance of r (Cochran, Sampling Techniques, 1977, 6.4)
    R, V       Σ w r and Σ w² v over domains with weights w
    *          the same on a resample: m units drawn with replacement, in every domain
    t*         (R* - R)/√V*, whose distribution stands for that of (R - truth)/√V
               (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, 12.5)
"""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64

from ckptmerge.domain.certificate import Interval
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.evaluation.student_t import freedom_through, survival

_MINIMUM_RESAMPLES = 100
_ANCHOR = 10
"""Resamples that must exceed a t before its tail is read off the bootstrap itself; beyond it, a
Student tail through the tenth largest t* continues."""

_ROUNDING = 1e-12
"""Share of its terms below which a sum of squares is zero but for rounding: one unit only was
drawn, again and again, and what it left would pass for a variance."""

_BLOCK = 2**20
"""Draws held in memory at once, 8 MB: 20,000 documents are resampled 52 times a block."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Stratum:
    """The sums over each unit of one domain, in the order of the units' labels."""

    bits: Float64[np.ndarray, " units"]
    bytes: Float64[np.ndarray, " units"]
    documents: int

    def __len__(self) -> int:
        return len(self.bits)


def stratify(scores: DocumentScores, nats: Float64[np.ndarray, " documents"]) -> dict[str, Stratum]:
    """Sum ``nats``, in bits, and the scored bytes by unit; return a stratum a domain, sorted.

    The order of the documents changes nothing, not even a last bit: they are summed in an order
    of their own.
    """
    domains, units = np.array(scores.domains), np.array(scores.units)
    order = np.lexsort((nats, scores.bytes, units, domains))
    strata = {}
    for domain in np.unique(domains):
        here = order[domains[order] == domain]
        labels, unit = np.unique(units[here], return_inverse=True)
        strata[str(domain)] = Stratum(
            bits=np.bincount(unit, nats[here], len(labels)) / math.log(2),
            bytes=np.bincount(unit, scores.bytes[here], len(labels)),
            documents=len(here),
        )
    return strata


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimate:
    """A number, its variance, and both again on every resample."""

    mean: float
    """R, bits per byte."""
    variance: float
    """V; infinite where a domain has a single unit, which shows no variation."""
    freedom: float
    """Degrees of freedom of ``variance``."""
    shifts: Float64[np.ndarray, " resamples"]
    """R* - R."""
    variances: Float64[np.ndarray, " resamples"]
    """V*."""

    @cached_property
    def deviates(self) -> Float64[np.ndarray, " resamples"]:
        """The studentised t* of every resample."""
        return _over(self.shifts, np.sqrt(self.variances))

    def interval(self, level: float) -> Interval:
        """Return the equal-tailed bootstrap-t interval; its bounds may be infinite.

        They are where no variation was seen that could bound them: a domain with one unit, or so
        few units that many a resample repeats a single one.
        """
        if math.isinf(self.variance):
            return Interval(self.mean, -math.inf, math.inf, level)
        error, tail = math.sqrt(self.variance), (1 - level) / 2
        smallest = float(np.quantile(self.deviates, tail, method="lower"))
        largest = float(np.quantile(self.deviates, 1 - tail, method="higher"))
        return Interval(self.mean, self.mean - largest * error, self.mean - smallest * error, level)

    def p_above(self, bound: float) -> float:
        """Return the one-sided p-value of "the truth is at most ``bound``", above 0.

        It is the larger of two. Student's with the degrees of freedom of the variance; and the
        share of resamples, (1 + #{t* >= t})/(1 + resamples), which follows the skewness of the
        data. Where fewer than ten resamples reach t, the share would be noise, and could never
        fall below 1/(1 + resamples): there the Student tail takes over that meets the share at
        the tenth largest t*, with as few degrees of freedom as that takes.
        """
        t = float(_over(np.array(self.mean - bound), np.array(math.sqrt(self.variance))))
        resamples = len(self.deviates)
        reached = int(np.count_nonzero(self.deviates >= t))
        if reached >= _ANCHOR:
            tail = (1 + reached) / (1 + resamples)
        else:
            anchor = float(np.partition(self.deviates, -_ANCHOR)[-_ANCHOR])
            share = (1 + _ANCHOR) / (1 + resamples)
            tail = survival(t, freedom_through(anchor, share, at_most=self.freedom))
        return max(tail, survival(t, self.freedom), sys.float_info.min)


def estimate(strata: Mapping[str, Stratum], *, seed: int, resamples: int) -> dict[str, Estimate]:
    """Return the estimate of every domain's ratio of bits to bytes.

    Strata of equal sizes are resampled alike for one ``seed``, whatever they hold.

    Raises:
        ValueError: fewer than 100 resamples, which have no tail to speak of.
    """
    if resamples < _MINIMUM_RESAMPLES:
        raise ValueError(f"{resamples} resamples are too few, take {_MINIMUM_RESAMPLES} or more")
    rng = np.random.default_rng(seed)
    return {domain: _ratio(stratum, rng, resamples) for domain, stratum in strata.items()}


def combine(parts: Iterable[tuple[float, Estimate]]) -> Estimate:
    """Return the estimate of a weighted sum of independent estimates.

    The degrees of freedom are Satterthwaite's, V² / Σ ((w² v)²/(m - 1)), no more than units less
    domains: few where a small domain contributes most of the variance.
    """
    parts = [(weight, part) for weight, part in parts if weight > 0]
    variance = sum(w**2 * part.variance for w, part in parts)
    freedom = sum(part.freedom for _, part in parts)
    if 0 < variance < math.inf:
        freedom = 1 / sum(
            (w**2 * part.variance / variance) ** 2 / part.freedom for w, part in parts
        )
    return Estimate(
        mean=sum(w * part.mean for w, part in parts),
        variance=variance,
        freedom=freedom,
        shifts=np.sum([w * part.shifts for w, part in parts], axis=0),
        variances=np.sum([w**2 * part.variances for w, part in parts], axis=0),
    )


def resampled_sums(
    columns: Float64[np.ndarray, "units columns"], rng: np.random.Generator, resamples: int
) -> Float64[np.ndarray, "resamples columns"]:
    """Return the columns' sums over resamples of the rows, as many rows drawn with replacement."""
    units = len(columns)
    sums = np.empty((resamples, columns.shape[1]))
    size = max(1, _BLOCK // units)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = rng.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        sums[start : start + rows] = counts.astype(np.float64) @ columns
    return sums


def _ratio(stratum: Stratum, rng: np.random.Generator, resamples: int) -> Estimate:
    """Estimate one domain's ratio.

    On a resample r* - r = Σ e*/Σ b*, and the residuals about r* are e* - (r* - r) b*. Starting
    from residuals, not from bits, nothing cancels where a difference is nearly the same per byte
    in all documents.
    """
    units, total = len(stratum), stratum.bytes.sum()
    ratio = stratum.bits.sum() / total
    e, b = stratum.bits - ratio * stratum.bytes, stratum.bytes
    sums = resampled_sums(np.stack([e, b, e * e, e * b, b * b], axis=1), rng, resamples)
    sum_e, sum_b, sum_ee, sum_eb, sum_bb = sums.T
    shifts = sum_e / sum_b
    squares = sum_ee - 2 * shifts * sum_eb + shifts**2 * sum_bb
    squares[squares < _ROUNDING * sum_ee] = 0
    correction = units / (units - 1) if units > 1 else math.inf
    return Estimate(
        mean=float(ratio),
        variance=correction * float(e @ e / total**2) if units > 1 else math.inf,
        freedom=float(max(units - 1, 1)),
        shifts=shifts,
        variances=correction * squares / sum_b**2 if units > 1 else np.full(resamples, math.inf),
    )


def _over(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, where nothing over nothing is 0 and something over nothing is infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(numerator == 0, 0.0, numerator / denominator)
