"""8. Report the gain on documents that neither searched nor decided anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckptmerge.domain.baselines import NEWEST, ema, wma
from ckptmerge.domain.certificate import Gain, Score
from ckptmerge.domain.observation import Objective, Split
from ckptmerge.domain.study import Study
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.evaluation.paired import gain, score
from ckptmerge.evaluation.scores import DocumentScores


@dataclass(frozen=True)
class Audit:
    """How good the best weights and the baselines are on the audit split."""

    score: Score
    baselines: Mapping[str, Score]
    gains: tuple[Gain, ...]
    """Of a promoted merge, against the newest checkpoint, the best parent, what was best
    before and the best uniform average; empty while nothing is promoted."""
    better_than_uniform: Gain | None
    """Against the uniform average best on search: a claim of its own, with its own interval."""


def averages(study: Study) -> dict[str, MergeWeights]:
    """Name the averages nobody had to search, which are shown beside what was found."""
    size = len(study.window)
    named = {
        trial.name: trial.weights
        for trial in study.observed
        if trial.name is not None and trial.name.startswith(("uniform-", "1-sqrt-"))
    }
    return named | dict([wma(size), ema(size)])


def audit(
    *,
    subject: DocumentScores | None,
    baselines: Mapping[str, DocumentScores],
    rivals: Sequence[str],
    best_uniform: str | None,
    objective: Objective,
    seed: int,
) -> Audit:
    """Score the promoted bytes (``subject``) and the baselines, and pair them by document.

    Without a subject the newest checkpoint is what stands, and there are no gains to report.
    ``rivals`` and ``best_uniform`` name the baselines that gains are reported against; the newest
    checkpoint must be among the baselines.
    """
    gains: tuple[Gain, ...] = ()
    if subject is not None:
        named = list(rivals)
        if best_uniform is not None and best_uniform not in named:
            named.append(best_uniform)
        gains = tuple(
            gain(
                subject, baselines[name], name=name, objective=objective, split=Split.AUDIT,
                seed=seed,
            )
            for name in named
        )  # fmt: skip
    best = baselines[NEWEST] if subject is None else subject
    return Audit(
        score=score(best, objective, Split.AUDIT, seed=seed),
        baselines={n: score(s, objective, Split.AUDIT, seed=seed) for n, s in baselines.items()},
        gains=gains,
        better_than_uniform=next((g for g in gains if g.against == best_uniform), None),
    )
