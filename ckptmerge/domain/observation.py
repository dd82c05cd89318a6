"""Observation: what measuring one candidate gave, and the objective it was measured for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError


class Split(StrEnum):
    """The part of a held-out set that a number was measured on."""

    SEARCH = "search"
    """Half of the documents: the optimiser sees them."""
    CERTIFY = "certify"
    """A quarter: decides whether bytes are promoted."""
    AUDIT = "audit"
    """A quarter: reports the gain; never decides and is never tested on."""
    ALL = "all"
    """The whole set, as `evaluate` scores it by default."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised: bits per byte, averaged over domains, perhaps with limits on domains.

    Raises:
        InvalidInputError: a domain weight is negative or not finite, or a limit is negative.
    """

    domain_weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """Weight of each domain, normalised to sum 1; empty means all alike."""
    limits: Mapping[str, float] = field(default_factory=dict[str, float])
    """Bits per byte by which a merge may be worse than the newest checkpoint, by domain."""

    def __post_init__(self) -> None:
        for name, table in (("weight", self.domain_weights), ("limit", self.limits)):
            for domain, value in table.items():
                if not (math.isfinite(value) and value >= 0):
                    raise InvalidInputError(f"domain {domain!r}: {name} {value} is not allowed")
        if self.domain_weights and not sum(self.domain_weights.values()) > 0:
            raise InvalidInputError("at least one domain must have a weight above zero")


@dataclass(frozen=True, slots=True)
class Observation:
    """The objective of one candidate on the search split.

    Raises:
        ValueError: a number is not finite, or the variance is negative; such a result is a trial's
            reason for being infeasible, never an observation.
    """

    value: float
    """Bits per byte; lower is better."""
    variance: float
    """Variance of ``value`` were the same documents scored again (kernel noise alone)."""
    replicates: tuple[float, ...] = ()
    """``value`` on bootstrap resamples of the documents, the same resamples for every candidate of
    a study: how much of a difference between candidates is owed to these documents."""
    scores: Digest | None = None
    """Digest of the per-document scores."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and all(map(math.isfinite, self.replicates))):
            raise ValueError(f"an observation must be finite, not {self.value}")
        if not (math.isfinite(self.variance) and self.variance >= 0):
            raise ValueError(f"a variance must be finite and not negative: {self.variance}")
