"""5. Record what a candidate's measurement gave."""

from ckptmerge.domain.observation import Observation
from ckptmerge.domain.study import Study
from ckptmerge.evaluation.paired import bits_per_byte, replicates
from ckptmerge.evaluation.scores import DocumentScores


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
