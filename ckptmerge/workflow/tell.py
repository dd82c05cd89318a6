"""5. Record what a candidate's measurement gave."""

from ckptmerge.domain.observation import Objective, Observation
from ckptmerge.domain.study import Study
from ckptmerge.evaluation.paired import bits_per_byte, replicates
from ckptmerge.evaluation.scores import DocumentScores

KERNEL_NOISE_FLOOR = 1e-14
"""Smallest variance of a repeated score, (1e-7 bits per byte)²: float32 logits know no better."""


def kernel_noise(first: DocumentScores, again: DocumentScores, objective: Objective) -> float:
    """Return the variance of scoring one candidate again, its documents batched differently."""
    difference = bits_per_byte(first, objective) - bits_per_byte(again, objective)
    return max(difference**2 / 2, KERNEL_NOISE_FLOOR)


def tell(study: Study, trial: int, scores: DocumentScores, *, variance: float) -> Study:
    """Return the study with a trial's per-document scores reduced to what the proposer needs.

    ``variance`` is that of scoring the same documents again.

    Raises:
        IllegalTransitionError: the trial was told before, or the study no longer searches.
    """
    objective = study.spec.objective
    observation = Observation(
        value=bits_per_byte(scores, objective),
        variance=variance,
        replicates=replicates(scores, objective),
        scores=scores.digest,
    )
    return study.tell(trial, observation)
