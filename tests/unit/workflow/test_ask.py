"""Candidates come from the initial design first, then from the proposer, then no more."""

import pytest

from ckptmerge.domain.baselines import initial_design
from ckptmerge.domain.checkpoint import Checkpoint, Manifest, TensorEntry, TensorSpec
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Observation
from ckptmerge.domain.study import Study
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import InvalidInputError, RefusedError
from ckptmerge.proposal.request import Proposal, ProposalRequest
from ckptmerge.workflow.ask import Stop, ask, design_within
from ckptmerge.workflow.open_studies import open_study


def checkpoints(count: int) -> list[Checkpoint]:
    entry = TensorEntry(TensorSpec("w", "F32", (2,)), "m", 0, Digest.of_bytes(b"w"))
    return [Checkpoint(f"step-{i}", i, Manifest((), (entry,))) for i in range(count)]


class Recorder:
    """Proposes one point, calls the lowest observation the incumbent, and keeps the requests."""

    def __init__(self, stop: str | None = None) -> None:
        self.requests: list[ProposalRequest] = []
        self._stop = stop

    def __call__(self, request: ProposalRequest) -> Proposal:
        self.requests.append(request)
        values = [point.value for point in request.observations]
        weights = MergeWeights.of(0.25, 0.25, 0.5)
        return Proposal(weights, values.index(min(values)), 1.0, 0.1, stop=self._stop)


def run(study: Study, proposer: Recorder) -> tuple[Study, Stop]:
    values = iter([3.0, 2.9, 4.0, 2.5, 2.6, 2.7, 2.8, 2.4, 2.3, 2.2])
    while not isinstance(step := ask(study, proposer), Stop):
        study, trial = step
        study = study.tell(trial.index, Observation(next(values), 0.0))
    return study, step


def test_the_design_comes_first_and_the_budget_ends_the_search() -> None:
    proposer = Recorder()
    study, stop = run(open_study(checkpoints(3), budget=9), proposer)
    design = initial_design(3)
    assert [trial.name for trial in study.trials[: len(design)]] == list(design)
    assert [trial.name for trial in study.trials[len(design) :]] == [None, None]
    assert stop.reason == "the budget of 9 passes is spent"
    assert stop.winner == 8
    assert [request.index for request in proposer.requests] == [7, 8, 9]


def test_the_proposers_own_stop_ends_the_search_with_its_reason() -> None:
    study, stop = run(open_study(checkpoints(3), budget=20), Recorder(stop="below the floor"))
    assert len(study.trials) == len(initial_design(3))
    assert stop.reason == "below the floor"
    assert study.trials[stop.winner].observation == Observation(2.5, 0.0)


def test_pending_trials_are_told_to_the_proposer() -> None:
    proposer = Recorder()
    study, _ = run(open_study(checkpoints(3), budget=9), proposer)
    one = open_study(checkpoints(3), budget=12)
    for trial in study.trials[:7]:
        one = one.propose(trial.weights, trial.name).tell(trial.index, Observation(3.0, 0.0))
    step = ask(one, proposer)
    assert not isinstance(step, Stop)
    ask(step[0], proposer)
    assert proposer.requests[-1].pending == (MergeWeights.of(0.25, 0.25, 0.5),)


def test_a_small_budget_drops_averages_and_never_checkpoints() -> None:
    design = design_within(8, 10)
    assert len(design) == 10
    assert sum(1.0 in weights.values for weights in design.values()) == 8
    assert "midpoint" in design


def test_a_budget_that_cannot_measure_the_checkpoints_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 4"):
        open_study(checkpoints(3), budget=3)


def test_a_pair_is_of_two() -> None:
    with pytest.raises(InvalidInputError, match="weighs two checkpoints, not 3"):
        open_study(checkpoints(3), space="pair")


def test_a_search_without_a_finite_loss_is_refused() -> None:
    study = open_study(checkpoints(2), space="pair", budget=3)
    for _ in range(3):
        step = ask(study, Recorder())
        assert not isinstance(step, Stop)
        study = step[0].tell_infeasible(step[1].index, "nan")
    with pytest.raises(RefusedError, match="no candidate gave a finite loss"):
        ask(study, Recorder())
