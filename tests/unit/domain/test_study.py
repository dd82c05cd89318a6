"""A study and its trials move only forwards, one legal step at a time."""

import pytest

from ckptmerge.domain.checkpoint import Checkpoint, FileEntry, Manifest, TensorEntry, TensorSpec
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Objective, Observation
from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.study import Study, StudySpec, StudyState
from ckptmerge.domain.trial import Trial, TrialState
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.domain.window import Window
from ckptmerge.errors import IllegalTransitionError, IncompatibleCheckpointsError, InvalidInputError

HALF = MergeWeights.of(0.5, 0.5)
SEEN = Observation(2.0, 1e-12)


def checkpoint(step: int, *, rows: int = 4, name: str = "w", attempt: int = 1) -> Checkpoint:
    digest = Digest.of_bytes(f"{step}".encode())
    spec = TensorSpec(name, "F32", (rows, 2))
    manifest = Manifest((FileEntry("m", 9, digest),), (TensorEntry(spec, "m", 0, digest),))
    return Checkpoint(f"step-{step}", step, manifest, attempt)


def study(budget: int = 4) -> Study:
    window = Window((checkpoint(1), checkpoint(2)))
    return Study(window, StudySpec(SearchSpace.pair(), budget=budget))


def test_a_window_is_of_one_model_oldest_first() -> None:
    with pytest.raises(InvalidInputError, match="oldest first"):
        Window((checkpoint(2), checkpoint(1)))
    with pytest.raises(InvalidInputError, match="twice"):
        Window((checkpoint(1), checkpoint(1)))
    with pytest.raises(InvalidInputError, match="at least two"):
        Window((checkpoint(1),))


def test_an_attempt_comes_after_the_one_before() -> None:
    window = Window((checkpoint(9), checkpoint(5, attempt=2)))
    assert window.newest.step == 5


def test_differing_shapes_are_named() -> None:
    with pytest.raises(IncompatibleCheckpointsError, match=r"w: shape \[4, 2\] against \[5, 2\]"):
        Window((checkpoint(1), checkpoint(2, rows=5)))


def test_differing_names_are_named() -> None:
    with pytest.raises(IncompatibleCheckpointsError, match="w: missing in the second"):
        Window((checkpoint(1), checkpoint(2, name="v")))


def test_differing_vocabularies_are_called_that() -> None:
    a, b = (
        checkpoint(1, name="model.embed_tokens.weight"),
        checkpoint(2, rows=5, name="model.embed_tokens.weight"),
    )
    with pytest.raises(IncompatibleCheckpointsError, match="vocabularies differ: 4 against 5"):
        Window((a, b))


def test_a_space_must_fit_its_window() -> None:
    with pytest.raises(InvalidInputError, match="3 checkpoints"):
        Study(study().window, StudySpec(SearchSpace.simplex(3)))


def test_a_trial_is_told_once() -> None:
    searching = study().propose(HALF)
    told = searching.tell(0, SEEN)
    assert told.observed[0].observation == SEEN
    with pytest.raises(IllegalTransitionError, match="is observed"):
        told.tell(0, SEEN)
    with pytest.raises(IllegalTransitionError):
        told.tell_infeasible(0, "nan")


def test_an_observed_trial_cannot_be_built_without_its_observation() -> None:
    with pytest.raises(IllegalTransitionError):
        Trial(0, HALF, state=TrialState.OBSERVED)
    with pytest.raises(IllegalTransitionError):
        Trial(0, HALF, observation=SEEN)


def test_the_budget_counts_every_trial() -> None:
    full = study(budget=1).propose(HALF)
    with pytest.raises(IllegalTransitionError, match="budget of 1"):
        full.propose(HALF)


def test_a_candidate_outside_the_space_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="outside"):
        study().propose(MergeWeights.of(-9.0, 10.0))


def test_freezing_needs_an_observed_winner_and_nothing_pending() -> None:
    pending = study().propose(HALF)
    with pytest.raises(IllegalTransitionError, match="still out"):
        pending.freeze(0, "enough")
    failed = pending.tell_failed(0, "out of memory")
    with pytest.raises(IllegalTransitionError, match="cannot win"):
        failed.freeze(0, "enough")
    frozen = pending.tell(0, SEEN).freeze(0, "enough")
    assert frozen.incumbent is not None
    assert frozen.incumbent.weights == HALF
    with pytest.raises(IllegalTransitionError):
        frozen.propose(HALF)
    assert frozen.decide().state is StudyState.DECIDED
    with pytest.raises(IllegalTransitionError):
        study().decide()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_observation_is_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Observation(value, 0.0)
    with pytest.raises(ValueError, match="variance"):
        Observation(1.0, -1.0)


def test_an_objective_refuses_negative_weights() -> None:
    with pytest.raises(InvalidInputError, match="code"):
        Objective(domain_weights={"code": -1.0})
    with pytest.raises(InvalidInputError):
        Objective(domain_weights={"code": 0.0})
