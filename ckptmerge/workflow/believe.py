"""Ask what a study's surrogate believes, and write it as the JSON that people and programs read."""

from dataclasses import dataclass, replace
from typing import Protocol

from ckptmerge.domain.study import Study
from ckptmerge.domain.trial import Trial
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import InvalidWeightsError
from ckptmerge.proposal.belief import Posterior, PosteriorRequest
from ckptmerge.proposal.belief import Prediction as Believed
from ckptmerge.wire.posterior import (
    PosteriorResource,
    PredictedLine,
    PredictedPoint,
    PredictedTrial,
    Prediction,
)
from ckptmerge.workflow.ask import proposal_request
from ckptmerge.workflow.stored import StoredStudy


class Believer(Protocol):
    """Says what is believed about a study's losses; keeps no state."""

    def __call__(self, request: PosteriorRequest) -> Posterior:
        """Return the posterior for this request.

        Raises:
            RefusedError: there are too few observations to believe anything.
        """
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """Which posterior is asked for: two equal questions have one answer.

    Observations of a study are only ever added, so their number says which they are.
    """

    study: str
    observations: int
    candidates: tuple[MergeWeights, ...] = ()


def question(stored: StoredStudy, candidates: tuple[MergeWeights, ...] = ()) -> Question:
    """Return what is asked where a study's posterior is, as the study stands."""
    return Question(stored.record.id, len(stored.study.observed), candidates)


def posterior_request(study: Study, candidates: tuple[MergeWeights, ...] = ()) -> PosteriorRequest:
    """Ask about a study's losses, given what was observed and nothing else.

    Candidates that are out and trials that failed are left aside, so that the answer is one of the
    `Question`.

    Raises:
        InvalidInputError: a candidate does not fit the study.
    """
    request = proposal_request(study)
    seen = replace(request, pending=(), index=len(request.observations))
    return PosteriorRequest(seen, candidates)


def read_candidate(text: str) -> MergeWeights:
    """Read merge weights as they stand in an address: ``0.4,0.6``, oldest checkpoint first.

    Raises:
        InvalidWeightsError: these are no numbers, or no merge weights.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidWeightsError(
            f"weights={text!r}: give one number a checkpoint, oldest first, such as 0.4,0.6"
        ) from error
    return MergeWeights.of(*values)


def posterior_resource(stored: StoredStudy, posterior: Posterior) -> PosteriorResource:
    """Describe what is believed about a study, as it stood when that was asked."""
    observed = stored.study.observed
    return PosteriorResource(
        study=stored.record.id,
        observations=len(observed),
        incumbent=observed[posterior.incumbent].index,
        expected_improvement=posterior.expected_improvement,
        floor=posterior.floor,
        trials=[
            PredictedTrial.model_validate(
                {"trial": trial.index, "name": trial.name, "value": _value(trial), **_told(point)}
            )
            for trial, point in zip(observed, posterior.observed, strict=True)
        ],
        line=PredictedLine(
            begin=posterior.line.begin,
            end=posterior.line.end,
            points=[
                PredictedPoint.model_validate({"at": at, **_told(point)})
                for at, point in zip(posterior.line.at, posterior.line.points, strict=True)
            ],
        ),
        candidates=[Prediction.model_validate(_told(point)) for point in posterior.candidates],
    )


def _told(point: Believed) -> dict[str, object]:
    return {
        "weights": list(point.weights.values),
        "mean": point.mean,
        "sd": point.sd,
        "gain": point.gain,
        "gain_sd": point.gain_sd,
    }


def _value(trial: Trial) -> float | None:
    return None if trial.observation is None else trial.observation.value
