"""The objective, and how much better one model is than another on the same documents.

Both models meet the same documents, so the documents' own difficulty, by far the largest part of
the variation, cancels in the difference; what is left decides how sure a gain is.
"""

import math
from collections.abc import Mapping

import numpy as np

from ckptmerge.domain.certificate import MINIMUM_UNITS, DomainScore, Gain, Score
from ckptmerge.domain.observation import Objective, Split
from ckptmerge.errors import HeldOutSetError, InvalidInputError
from ckptmerge.evaluation.bootstrap import (
    Estimate,
    Stratum,
    combine,
    estimate,
    resampled_sums,
    stratify,
)
from ckptmerge.evaluation.scores import DocumentScores, require_same_documents

RESAMPLES = 2000
"""Bootstrap resamples behind an interval or a p-value."""


def domain_weights(scores: DocumentScores, objective: Objective) -> dict[str, float]:
    """Return every domain's weight in the objective, in sum 1; domains it leaves out weigh 0.

    Raises:
        HeldOutSetError: the objective names a domain that no document is of.
    """
    domains = sorted(set(scores.domains))
    for domain in [*objective.domain_weights, *objective.limits]:
        if domain not in domains:
            raise HeldOutSetError(
                f"the objective names domain {domain!r}, but the documents are of "
                f"{', '.join(map(repr, domains))}; correct its name or add documents"
            )
    named = objective.domain_weights or dict.fromkeys(domains, 1.0)
    total = math.fsum(named.values())
    return {domain: named.get(domain, 0.0) / total for domain in domains}


def bits_per_byte(scores: DocumentScores, objective: Objective) -> float:
    """Return the objective: Σ over domains of w · (Σ nats / ln 2 / Σ bytes); lower is better."""
    weights = domain_weights(scores, objective)
    strata = stratify(scores, scores.nats)
    return math.fsum(weights[d] * float(s.bits.sum() / s.bytes.sum()) for d, s in strata.items())


def score(
    scores: DocumentScores,
    objective: Objective,
    split: Split,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Score:
    """Return the objective of one model with its interval, overall and by domain.

    Raises:
        InvalidInputError: a loss is not finite.
    """
    _require_finite(scores)
    strata = stratify(scores, scores.nats)
    parts = estimate(strata, seed=seed, resamples=resamples)
    return Score(
        interval=_overall(parts, domain_weights(scores, objective)).interval(level),
        split=split,
        documents=len(scores),
        domains=_by_domain(strata, parts, level),
    )


def gain(
    subject: DocumentScores,
    against: DocumentScores,
    *,
    name: str,
    objective: Objective,
    split: Split,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Gain:
    """Return how many bits per byte ``subject`` is better than ``against``, called ``name``.

    Raises:
        HeldOutSetError: the two were not scored on the same documents.
        InvalidInputError: a loss is not finite.
    """
    strata = _saved(subject, against)
    parts = estimate(strata, seed=seed, resamples=resamples)
    overall = _overall(parts, domain_weights(subject, objective))
    return Gain(
        against=name,
        interval=overall.interval(level),
        p=overall.p_above(0.0),
        split=split,
        documents=len(subject),
        domains=_by_domain(strata, parts, level),
    )


def domains_not_kept(
    subject: DocumentScores,
    newest: DocumentScores,
    *,
    objective: Objective,
    alpha: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[str, ...]:
    """Return the domains with a limit that ``subject`` was not shown to keep, sorted.

    Non-inferiority: a domain's limit is kept when "worse than ``newest`` by the limit or more" is
    rejected at the one-sided level ``alpha``. Nothing is shown by fewer than thirty units.

    Raises:
        HeldOutSetError: the two were not scored on the same documents, or no document is of a
            limited domain.
        InvalidInputError: a loss is not finite.
    """
    domain_weights(subject, objective)
    strata = _saved(subject, newest)
    parts = estimate(strata, seed=seed, resamples=resamples)
    return tuple(
        domain
        for domain, limit in sorted(objective.limits.items())
        if _too_few(strata[domain]) or parts[domain].p_above(-float(limit)) > alpha
    )


def replicates(
    scores: DocumentScores, objective: Objective, *, seed: int = 0, count: int = 64
) -> tuple[float, ...]:
    """Return the objective on ``count`` bootstrap resamples of the units within domains.

    The resamples depend on the documents and ``seed`` alone, so candidates scored on the same
    documents meet the same resamples, and their differences keep the pairing.
    """
    weights = domain_weights(scores, objective)
    rng = np.random.default_rng(seed)
    total = np.zeros(count)
    for domain, stratum in stratify(scores, scores.nats).items():
        sums = resampled_sums(np.stack([stratum.bits, stratum.bytes], axis=1), rng, count)
        total += weights[domain] * sums[:, 0] / sums[:, 1]
    return tuple(total.tolist())


def _saved(subject: DocumentScores, against: DocumentScores) -> dict[str, Stratum]:
    require_same_documents(subject, against)
    _require_finite(subject)
    _require_finite(against)
    return stratify(subject, against.nats - subject.nats)


def _require_finite(scores: DocumentScores) -> None:
    broken = int(np.count_nonzero(~np.isfinite(scores.nats)))
    if broken:
        raise InvalidInputError(
            f"the loss is not a finite number on {broken} of {len(scores)} documents: this model "
            "is broken and cannot be compared"
        )


def _overall(parts: Mapping[str, Estimate], weights: Mapping[str, float]) -> Estimate:
    return combine((weights[domain], part) for domain, part in parts.items())


def _by_domain(
    strata: Mapping[str, Stratum], parts: Mapping[str, Estimate], level: float
) -> dict[str, DomainScore]:
    return {
        domain: DomainScore(
            part.interval(level), strata[domain].documents, _too_few(strata[domain])
        )
        for domain, part in parts.items()
    }


def _too_few(stratum: Stratum) -> bool:
    return len(stratum) < MINIMUM_UNITS
