"""Certificate: the evidence that a merge is better, and what it is better than."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split

FAMILYWISE_ERROR = 0.05
"""Chance that a run ever promotes a merge that is no better, over all its tests."""

MINIMUM_UNITS = 30
"""Independent documents (or groups) below which nothing is claimed."""


def alpha(test: int) -> float:
    """Level of the ``test``-th test of a run's era, counted from 1.

    alpha_j = 0.05 · 6 / (π² j²): the levels of all tests a run can ever make sum to 0.05, so the
    chance that it promotes falsely even once stays below 5 % (Bonferroni over a convergent series).
    """
    if test < 1:
        raise ValueError(f"tests are counted from 1, not {test}")
    return FAMILYWISE_ERROR * 6 / (math.pi**2 * test**2)


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with the bounds between which it lies at ``level``."""

    mean: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class DomainScore:
    """One domain's part of a score or gain."""

    interval: Interval
    documents: int
    too_few: bool = False
    """Fewer than thirty independent documents: shown, but nothing is claimed from it."""


@dataclass(frozen=True, slots=True)
class Score:
    """Bits per byte of one model on one split."""

    interval: Interval
    split: Split
    documents: int
    domains: Mapping[str, DomainScore] = field(default_factory=dict[str, DomainScore])
    unit: str = "bits_per_byte"


@dataclass(frozen=True, slots=True)
class Gain:
    """How many bits per byte better than ``against``, paired by document; positive is better."""

    against: str
    interval: Interval
    p: float
    """One-sided p-value of "not better at all"."""
    split: Split
    documents: int
    domains: Mapping[str, DomainScore] = field(default_factory=dict[str, DomainScore])
    unit: str = "bits_per_byte"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The outcome of one test on the certify split.

    ``passed`` is derived, so no certificate can say one thing and show another.
    """

    subject: str
    """What was tested: the winner, a uniform average, or a checkpoint."""
    test: int
    """Number of the test within the run's era, from 1; it fixes ``alpha``."""
    gains: tuple[Gain, ...]
    """One against each of newest checkpoint, best parent and current best."""
    worse_domains: tuple[str, ...]
    """Domains with a limit that the subject was not shown to keep."""
    held_out: Digest
    documents: int
    units: int
    """Independent units among the documents: groups where documents name one."""
    artifact: Digest | None = None
    """The very bytes that were scored; None for a checkpoint."""

    @property
    def alpha(self) -> float:
        """The level this test was made at."""
        return alpha(self.test)

    @property
    def p(self) -> float:
        """The largest of the gains' p-values: all must hold (intersection-union test)."""
        return max((gain.p for gain in self.gains), default=1.0)

    @property
    def gain(self) -> Gain:
        """The gain hardest to show."""
        return max(self.gains, key=lambda gain: gain.p)

    @property
    def passed(self) -> bool:
        """Whether everything that must hold was shown."""
        return (
            self.units >= MINIMUM_UNITS
            and bool(self.gains)
            and self.p <= self.alpha
            and not self.worse_domains
        )
