"""A proposer that fails, in whichever way: the search ends, and the study is decided."""

import pytest

from ckptmerge.domain.study import StudyState
from ckptmerge.errors import ProposerError
from ckptmerge.proposal.bayesian import propose
from ckptmerge.proposal.request import Proposal, ProposalRequest
from ckptmerge.storage.records import TaskRecord
from ckptmerge.workflow.proposer_process import ProposerProcess
from tests.unit.workflow.conducted import World


def over(world: World, steps: tuple[int, ...] = (10, 20)):
    for step in steps:
        world.arrive(step)
    return world.conclude()


@pytest.mark.parametrize(
    "error", [ProposerError("it died twice"), ValueError("not positive definite"), MemoryError()]
)
def test_the_search_ends_with_the_reason_and_what_was_measured_is_decided_on(error) -> None:
    def failing(_request: ProposalRequest) -> Proposal:
        raise error

    study = over(World(proposer=failing))
    assert study.state is StudyState.DECIDED
    assert "the search could not go on" in (study.stopped or "")
    assert str(error) in (study.stopped or "")
    assert study.verdict is not None
    assert study.verdict.best is not None, "the average is better than both ends"


def test_a_proposer_that_dies_every_time_does_so_too(tmp_path, monkeypatch) -> None:
    (tmp_path / "dies.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ProposerProcess(module="dies") as process:
        study = over(World(proposer=process.propose))
    assert study.state is StudyState.DECIDED
    assert "died twice" in (study.stopped or "")


def test_candidates_that_are_all_alike_leave_nothing_to_model_and_nothing_stalls() -> None:
    """With the real proposer: a constant metric has no scale."""
    world = World(proposer=propose, loss=lambda _weights: 2.0)
    study = over(world)
    assert study.state is StudyState.DECIDED
    assert study.verdict is not None
    assert study.verdict.best is None
    assert all(r.observation is not None for r in world.all(TaskRecord) if r.task.trial is not None)


def test_a_fit_that_raises_is_filled_in_for_by_points_far_from_all_others(monkeypatch) -> None:
    from ckptmerge.proposal import bayesian

    def fit(*_: object) -> None:
        raise bayesian.FIT_ERRORS[0]("no fit")

    monkeypatch.setattr(bayesian, "fit", fit)
    world = World(proposer=propose)
    study = over(world)
    assert study.state is StudyState.DECIDED
    assert study.stopped == "the budget of 12 passes is spent"
