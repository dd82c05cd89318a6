"""The worth of a merge is a bound that a flattening loss curve cannot undercut."""

import pytest

from ckptmerge.errors import InvalidInputError
from ckptmerge.scaling.worth import worth_in_steps

STEPS = list(range(50, 650, 50))


def curve(step: float) -> float:
    return 2.0 + 8.0 * step**-0.5


def test_the_bound_holds_on_a_curve_that_is_known() -> None:
    later = 900
    worth = worth_in_steps(STEPS, [curve(s) for s in STEPS], merged=curve(later))
    assert worth.bound
    assert worth.steps is not None
    assert 60 < worth.steps <= later - 600


def test_a_straight_curve_gives_its_steps_exactly() -> None:
    worth = worth_in_steps(STEPS, [4 - 0.001 * s for s in STEPS], merged=4 - 0.001 * 700)
    assert worth.steps == pytest.approx(100)


def test_no_gain_is_worth_nothing() -> None:
    worth = worth_in_steps(STEPS, [curve(s) for s in STEPS], merged=curve(500))
    assert worth.steps == 0
    assert not worth.bound


def test_a_run_that_no_longer_improves_has_no_number() -> None:
    losses = [2.5 + 0.0001 * s for s in STEPS]
    assert worth_in_steps(STEPS, losses, merged=2.0).steps is None


def test_a_curve_needs_four_rising_steps() -> None:
    with pytest.raises(InvalidInputError):
        worth_in_steps([1, 2, 3], [3.0, 2.0, 1.0], merged=0.5)
    with pytest.raises(InvalidInputError):
        worth_in_steps([1, 2, 2, 3], [3.0, 2.0, 2.0, 1.0], merged=0.5)
