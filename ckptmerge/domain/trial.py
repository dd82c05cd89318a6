"""Trial: the life of one candidate, from proposal to observation."""

from dataclasses import dataclass, replace
from enum import StrEnum

from ckptmerge.domain.observation import Observation
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import IllegalTransitionError


class TrialState(StrEnum):
    """Where a trial stands."""

    PENDING = "pending"
    """Proposed, not yet measured."""
    OBSERVED = "observed"
    """Measured."""
    INFEASIBLE = "infeasible"
    """Measured, and the loss was not a finite number."""
    FAILED = "failed"
    """Could not be measured."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate of a study.

    Raises:
        IllegalTransitionError: an observation is missing or there is one too many for the state.
    """

    index: int
    """Its number within the study, from 0."""
    weights: MergeWeights
    name: str | None = None
    """The baseline's name, where the weights are one; None for a proposed candidate."""
    state: TrialState = TrialState.PENDING
    observation: Observation | None = None
    reason: str | None = None
    """Why the trial is infeasible or failed."""
    reused: bool = False
    """Whether an earlier study had measured it already, so that it costs no pass."""

    def __post_init__(self) -> None:
        if (self.observation is not None) != (self.state is TrialState.OBSERVED):
            raise IllegalTransitionError(
                f"trial {self.index}: an observation goes with state observed, not {self.state}"
            )

    def observed(self, observation: Observation) -> "Trial":
        """Return the trial with its observation.

        Raises:
            IllegalTransitionError: the trial is not pending.
        """
        self._require_pending("observed")
        return replace(self, state=TrialState.OBSERVED, observation=observation)

    def infeasible(self, reason: str) -> "Trial":
        """Return the trial as one whose loss is not a finite number.

        Raises:
            IllegalTransitionError: the trial is not pending.
        """
        self._require_pending("infeasible")
        return replace(self, state=TrialState.INFEASIBLE, reason=reason)

    def failed(self, reason: str) -> "Trial":
        """Return the trial as one that could not be measured.

        Raises:
            IllegalTransitionError: the trial is not pending.
        """
        self._require_pending("failed")
        return replace(self, state=TrialState.FAILED, reason=reason)

    def _require_pending(self, to: str) -> None:
        if self.state is not TrialState.PENDING:
            raise IllegalTransitionError(f"trial {self.index} is {self.state}, cannot become {to}")
