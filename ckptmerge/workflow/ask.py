"""3. The next candidate: one of the initial design, else the proposer's, else the end."""

import math
from dataclasses import dataclass
from typing import Protocol

from ckptmerge.domain.baselines import initial_design
from ckptmerge.domain.study import Study
from ckptmerge.domain.trial import Trial
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import ProposerError, RefusedError
from ckptmerge.proposal.request import ObservedPoint, Proposal, ProposalRequest


class Proposer(Protocol):
    """Names the next candidate from what was observed and what is still out; keeps no state."""

    def __call__(self, request: ProposalRequest) -> Proposal:
        """Return the candidate for this request; the same request gives the same candidate."""
        ...


@dataclass(frozen=True, slots=True)
class Stop:
    """The search is over."""

    winner: int
    """Index of the trial that is best by posterior mean, not by luck of the draw."""
    reason: str


def ask(study: Study, proposer: Proposer) -> tuple[Study, Trial] | Stop:
    """Return the study with its next pending trial, or say that the search is over.

    A proposer that fails ends the search, not the study: what was measured is there, and whether
    the best of it is any good is decided on other documents.

    Raises:
        RefusedError: every candidate of the initial design turned out infeasible.
    """
    design = design_within(len(study.window), study.spec.budget)
    for name, weights in design.items():
        if all(trial.name != name for trial in study.trials):
            return _with_trial(study, weights, name)
    if not study.observed:
        raise RefusedError("no candidate gave a finite loss: there is nothing to search from")
    try:
        proposal = proposer(proposal_request(study))
    except ProposerError as error:
        return Stop(min(study.observed, key=_value).index, f"the search could not go on: {error}")
    if study.passes >= study.spec.budget:
        return Stop(_winner(study, proposal), f"the budget of {study.spec.budget} passes is spent")
    if proposal.stop is not None:
        return Stop(_winner(study, proposal), proposal.stop)
    return _with_trial(study, proposal.weights, None)


def design_within(size: int, budget: int) -> dict[str, MergeWeights]:
    """Return the initial design, cut to the budget; checkpoints themselves are cut last."""
    design = initial_design(size)
    merges = [name for name, weights in design.items() if 1.0 not in weights.values]
    spare = max(0, len(design) - budget)
    dropped = set(merges[len(merges) - spare :]) if spare else set[str]()
    return {name: weights for name, weights in design.items() if name not in dropped}


def _with_trial(study: Study, weights: MergeWeights, name: str | None) -> tuple[Study, Trial]:
    study = study.propose(weights, name)
    return study, study.trials[-1]


def proposal_request(study: Study) -> ProposalRequest:
    """Return everything that the study's next candidate depends on."""
    points = [(trial.weights, trial.observation) for trial in study.observed]
    return ProposalRequest(
        space=study.spec.space,
        observations=tuple(
            ObservedPoint(weights, seen.value, seen.variance, seen.replicates)
            for weights, seen in points
            if seen is not None
        ),
        pending=tuple(trial.weights for trial in study.pending),
        seed=study.spec.seed,
        index=len(study.trials),
    )


def _value(trial: Trial) -> float:
    return math.inf if trial.observation is None else trial.observation.value


def _winner(study: Study, proposal: Proposal) -> int:
    return study.observed[proposal.incumbent].index
