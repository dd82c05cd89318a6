import math

import pytest
from scipy import stats

from ckptmerge.evaluation.student_t import freedom_through, survival

FREEDOMS = [0.05, 0.7, 1.0, 1.5, 2.0, 5.0, 29.0, 87.0, 199.9, 200.1, 1000.0, 20_000.0]
TS = [0.001, 0.3, 1.0, 1.7, 2.5, 4.0, 6.0, 9.0, 15.0, 36.0, 1000.0]


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_the_tail_agrees_with_scipy_to_ten_digits(freedom):
    for t in TS:
        expected = float(stats.t.sf(t, freedom))
        if expected > 1e-290:  # scipy's own precision ends there
            assert survival(t, freedom) == pytest.approx(expected, rel=1e-10)


def test_the_tails_are_symmetric_and_end_at_infinity():
    assert survival(0.0, 5.0) == 0.5
    assert survival(-2.5, 5.0) == pytest.approx(1 - survival(2.5, 5.0), abs=1e-15)
    assert (survival(math.inf, 5.0), survival(-math.inf, 5.0)) == (0.0, 1.0)


@pytest.mark.parametrize("t", [1e-200, 1e-160, 1e-9, 1e9, 1e150])
def test_the_ends_of_the_range_are_finite(t):
    # scipy itself loses digits below t = 1e-6; Cauchy's tail is known in closed form.
    assert survival(t, 1.0) == pytest.approx(math.atan2(1, t) / math.pi, rel=1e-12)


@pytest.mark.parametrize("freedom", [0.02, 1.0, 4.2, 60.0])
def test_degrees_of_freedom_are_recovered_from_a_tail(freedom):
    found = freedom_through(3.25, survival(3.25, freedom), at_most=300.0)
    assert found == pytest.approx(freedom, rel=1e-6)


def test_a_tail_lighter_than_the_lightest_allowed_takes_the_lightest():
    assert freedom_through(2.0, 0.01, at_most=50.0) == 50
    assert freedom_through(-1.0, 0.01, at_most=50.0) == 50


def test_a_tail_heavier_than_any_takes_the_heaviest():
    assert survival(1e12, freedom_through(math.inf, 0.005, at_most=50.0)) > 0.05
