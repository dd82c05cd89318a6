"""Study: the search over one window."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from ckptmerge.domain.observation import Objective, Observation
from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.trial import Trial, TrialState
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.domain.window import Window
from ckptmerge.errors import IllegalTransitionError, InvalidInputError


class StudyState(StrEnum):
    """Where a study stands."""

    SEARCHING = "searching"
    FROZEN = "frozen"
    """The winner is chosen and its bytes may be written; no more candidates."""
    DECIDED = "decided"
    """The certify split has spoken; nothing about the study changes any more."""
    REFUSED = "refused"
    """It ended without a decision: the checkpoints do not merge, or cannot be scored."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StudySpec:
    """How to search.

    Raises:
        InvalidInputError: the budget is below one pass.
    """

    space: SearchSpace
    budget: int = 24
    """Forward passes over the search split, the initial design included."""
    seed: int = 0
    dtype: OutputDtype = "keep"
    """Dtype of the winner's bytes; candidates are scored rounded to it."""
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InvalidInputError(f"a budget of {self.budget} passes measures nothing")


@dataclass(frozen=True)
class Study:
    """A window, how to search it, and every trial so far.

    Raises:
        InvalidInputError: the space weighs another number of checkpoints than the window holds.
    """

    window: Window
    spec: StudySpec
    trials: tuple[Trial, ...] = ()
    state: StudyState = StudyState.SEARCHING
    winner: int | None = None
    """Index of the frozen trial."""
    stopped: str | None = None
    """Why the search ended."""

    def __post_init__(self) -> None:
        if self.spec.space.size != len(self.window):
            raise InvalidInputError(
                f"a {self.spec.space.kind} over {self.spec.space.size} checkpoints cannot search "
                f"a window of {len(self.window)}"
            )

    @property
    def observed(self) -> tuple[Trial, ...]:
        """Trials with an observation."""
        return tuple(t for t in self.trials if t.state is TrialState.OBSERVED)

    @property
    def pending(self) -> tuple[Trial, ...]:
        """Trials that were proposed and not yet told."""
        return tuple(t for t in self.trials if t.state is TrialState.PENDING)

    @property
    def passes(self) -> int:
        """Forward passes over the search split that were spent or promised."""
        return sum(not trial.reused for trial in self.trials)

    @property
    def incumbent(self) -> Trial | None:
        """The frozen winner, or None while the search goes on."""
        return None if self.winner is None else self.trials[self.winner]

    def named(self, name: str) -> Trial | None:
        """Return the observed baseline of that name."""
        return next((t for t in self.observed if t.name == name), None)

    def propose(self, weights: MergeWeights, name: str | None = None) -> "Study":
        """Return the study with one more pending trial.

        Raises:
            IllegalTransitionError: the study no longer searches, or its budget is spent.
            InvalidInputError: a searched candidate lies outside the space.
        """
        self._require(StudyState.SEARCHING, "take another candidate")
        if self.passes >= self.spec.budget:
            raise IllegalTransitionError(f"the budget of {self.spec.budget} passes is spent")
        if name is None and not self.spec.space.holds(weights):
            raise InvalidInputError(f"candidate {weights.values} lies outside the search space")
        return replace(self, trials=(*self.trials, Trial(len(self.trials), weights, name)))

    def tell(self, index: int, observation: Observation) -> "Study":
        """Return the study with a pending trial's observation."""
        return self._with(self.trials[index].observed(observation))

    def tell_infeasible(self, index: int, reason: str) -> "Study":
        """Return the study with a trial whose loss was not finite."""
        return self._with(self.trials[index].infeasible(reason))

    def tell_failed(self, index: int, reason: str) -> "Study":
        """Return the study with a trial that could not be measured."""
        return self._with(self.trials[index].failed(reason))

    def freeze(self, winner: int, stopped: str) -> "Study":
        """End the search with a winner.

        Raises:
            IllegalTransitionError: the study no longer searches, a trial is still out, or the
                winner was never observed.
        """
        self._require(StudyState.SEARCHING, "be frozen")
        if self.pending:
            raise IllegalTransitionError(f"{len(self.pending)} trials are still out")
        if self.trials[winner].state is not TrialState.OBSERVED:
            raise IllegalTransitionError(f"trial {winner} has no observation and cannot win")
        return replace(self, state=StudyState.FROZEN, winner=winner, stopped=stopped)

    def decide(self) -> "Study":
        """Record that the certify split has spoken.

        Raises:
            IllegalTransitionError: the winner was not frozen before.
        """
        self._require(StudyState.FROZEN, "be decided")
        return replace(self, state=StudyState.DECIDED)

    def _require(self, state: StudyState, to: str) -> None:
        if self.state is not state:
            raise IllegalTransitionError(f"a {self.state} study cannot {to}")

    def _with(self, trial: Trial) -> "Study":
        self._require(StudyState.SEARCHING, "be told")
        trials = list(self.trials)
        trials[trial.index] = trial
        return replace(self, trials=tuple(trials))
