import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ckptmerge.evaluation import bootstrap
from ckptmerge.evaluation.bootstrap import Estimate, Stratum, combine, estimate, resampled_sums


def stratum(bits, sizes=None):
    bits = np.asarray(bits, dtype=float)
    sizes = np.ones(len(bits)) if sizes is None else np.asarray(sizes, dtype=float)
    return Stratum(bits=bits, bytes=sizes, documents=len(bits))


def only(bits, sizes=None, *, seed=0, resamples=2000):
    return estimate({"d": stratum(bits, sizes)}, seed=seed, resamples=resamples)["d"]


def normal_scores(n):
    """A sample whose mean is 0 and whose quantiles are exactly normal."""
    return stats.norm.ppf((np.arange(n) + 0.5) / n)


def test_the_ratio_and_its_variance_are_those_worked_by_hand():
    # r = 9/4; residuals -5/4, -1/4, 3/2; their squares sum to 31/8; v = 3/2 · 31/8 / 16.
    found = only([1, 2, 6], [1, 1, 2])
    assert found.mean == 9 / 4
    assert found.variance == pytest.approx(3 / 2 * 31 / 8 / 16, rel=1e-15)
    assert found.freedom == 2


def test_the_deviates_are_those_of_every_possible_resample():
    y, b = np.array([1.0, 2.0, 6.0, -1.0]), np.array([1.0, 1.0, 2.0, 3.0])
    r, expected = y.sum() / b.sum(), []
    for drawn in itertools.product(range(4), repeat=4):
        ys, bs = y[list(drawn)], b[list(drawn)]
        residuals = ys - ys.sum() / bs.sum() * bs
        error = math.sqrt(4 / 3 * (residuals**2).sum()) / bs.sum()
        if error > 1e-9:  # four draws of one document have no t
            expected.append((ys.sum() / bs.sum() - r) / error)
    found = only(y, b, resamples=20_000).deviates
    found = found[np.abs(found) < 1e6]
    expected = np.array(expected)
    nearest = np.abs(found[:, None] - expected[None, :]).min(axis=1)
    assert nearest.max() < 1e-9
    assert found.mean() == pytest.approx(expected.mean(), abs=0.08)
    assert np.quantile(found, 0.9) == pytest.approx(np.quantile(expected, 0.9), abs=0.05)


def test_the_interval_of_normal_data_is_students():
    n = 200
    found = only(0.3 + normal_scores(n), resamples=20_000).interval(0.95)
    half = stats.t.ppf(0.975, n - 1) * normal_scores(n).std(ddof=1) / math.sqrt(n)
    assert found.mean == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - half, abs=0.03 * half)
    assert found.high == pytest.approx(0.3 + half, abs=0.03 * half)
    assert found.level == 0.95


def test_the_interval_is_longer_towards_the_long_tail():
    found = only(np.random.default_rng(0).exponential(size=60)).interval(0.95)
    assert found.high - found.mean > 1.2 * (found.mean - found.low)


def test_the_p_of_normal_data_is_students():
    n, scores = 100, normal_scores(100)
    for t in (0.0, 1.0, 1.7, 2.2):
        shift = t * scores.std(ddof=1) / math.sqrt(n)
        p = only(shift + scores, resamples=20_000).p_above(0.0)
        assert p == pytest.approx(stats.t.sf(t, n - 1), rel=0.12)


def test_a_few_exceeding_resamples_count_as_one_more():
    part = Estimate(
        mean=2.5,
        variance=1.0,
        freedom=1e4,
        shifts=np.array([3.0] * 12 + [0.0] * 87),
        variances=np.ones(99),
    )
    assert part.p_above(0.0) == pytest.approx(13 / 100)
    assert part.p_above(3.0) == pytest.approx(1.0)


def test_the_tail_meets_the_bootstrap_at_its_tenth_largest_deviate():
    found = only(1 - np.random.default_rng(3).exponential(size=60), resamples=2000)
    anchor = np.sort(found.deviates)[-10]
    scale = math.sqrt(found.variance)
    at = found.p_above(found.mean - anchor * scale * (1 - 1e-12))
    beyond = found.p_above(found.mean - anchor * scale * (1 + 1e-6))
    assert at == pytest.approx(11 / 2001)
    assert beyond == pytest.approx(11 / 2001, rel=1e-3)
    # Here the bootstrap's tail is heavier than Student's, and stays so further out.
    far = found.p_above(found.mean - 2 * anchor * scale)
    assert far > 10 * stats.t.sf(2 * anchor, 59)


def test_a_tail_is_never_lighter_than_students():
    found = only(np.random.default_rng(3).exponential(size=60) - 1, resamples=2000)
    scale = math.sqrt(found.variance)
    for t in (0.5, 1.5, 2.5, 4.0, 8.0):
        assert found.p_above(found.mean - t * scale) >= stats.t.sf(t, 59) * (1 - 1e-9)


def test_the_p_of_an_overwhelming_gain_is_tiny_but_not_zero():
    assert 0 < only(1e6 + normal_scores(2000)).p_above(0.0) < 1e-100


def test_identical_models_have_p_one_and_no_width():
    found = only(np.zeros(50), np.arange(1, 51))
    assert found.p_above(0.0) == 1
    assert (found.interval(0.95).low, found.interval(0.95).high) == (0, 0)


@pytest.mark.parametrize("gain", [0.1, -0.1])
def test_the_same_gain_in_every_document_has_no_width_and_is_sure(gain):
    sizes = np.arange(1.0, 51.0)
    found = only(gain * sizes, sizes)
    assert found.interval(0.95).low == pytest.approx(gain)
    assert found.interval(0.95).high == pytest.approx(gain)
    p = found.p_above(0.0)
    assert 0 < p < 1e-100 if gain > 0 else p == 1


def test_one_unit_bounds_nothing_and_shows_nothing():
    found = only([5.0], [2.0])
    assert found.mean == 2.5
    assert (found.interval(0.95).low, found.interval(0.95).high) == (-math.inf, math.inf)
    assert found.p_above(0.0) == 1


def test_one_unit_in_one_domain_is_enough_to_bound_nothing():
    strata = {"many": stratum(1 + normal_scores(100)), "one": stratum([3.0])}
    parts = estimate(strata, seed=0, resamples=500)
    whole = combine((0.5, part) for part in parts.values())
    assert whole.mean == pytest.approx(2.0)
    assert whole.interval(0.95).low == -math.inf
    assert whole.p_above(0.0) == 1
    assert combine([(1.0, parts["many"]), (0.0, parts["one"])]).p_above(0.0) < 1e-6


def test_two_units_show_little():
    assert only([1.0, 1.1], resamples=2000).p_above(0.0) > 0.01


def test_domains_add_up_by_their_weights():
    strata = {"a": stratum(normal_scores(50)), "b": stratum(1 + 3 * normal_scores(200))}
    parts = estimate(strata, seed=0, resamples=500)
    whole = combine(zip((0.25, 0.75), parts.values(), strict=True))
    v = [0.25**2 * parts["a"].variance, 0.75**2 * parts["b"].variance]
    assert whole.mean == pytest.approx(0.75)
    assert whole.variance == pytest.approx(sum(v))
    assert whole.freedom == pytest.approx(sum(v) ** 2 / (v[0] ** 2 / 49 + v[1] ** 2 / 199))
    shifts = 0.25 * parts["a"].shifts + 0.75 * parts["b"].shifts
    variances = 0.25**2 * parts["a"].variances + 0.75**2 * parts["b"].variances
    assert whole.deviates == pytest.approx(shifts / np.sqrt(variances))


def test_a_small_noisy_domain_brings_the_degrees_of_freedom_down_to_its_own():
    strata = {"large": stratum(normal_scores(500)), "small": stratum(100 * normal_scores(4))}
    whole = combine((0.5, part) for part in estimate(strata, seed=0, resamples=200).values())
    assert whole.freedom == pytest.approx(3, abs=0.01)


def test_resampled_sums_do_not_depend_on_how_they_are_blocked(monkeypatch):
    columns = np.random.default_rng(0).normal(size=(37, 3))
    whole = resampled_sums(columns, np.random.default_rng(1), 101)
    monkeypatch.setattr(bootstrap, "_BLOCK", 100)
    assert resampled_sums(columns, np.random.default_rng(1), 101) == pytest.approx(whole)


def test_a_resample_draws_as_many_rows_as_there_are():
    counts = resampled_sums(np.eye(6), np.random.default_rng(0), 3000)
    assert set(counts.sum(axis=1)) == {6.0}
    assert counts.mean(axis=0) == pytest.approx(np.ones(6), abs=0.1)
    assert counts.var(axis=0) == pytest.approx(np.full(6, 5 / 6), abs=0.1)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="99 resamples are too few"):
        only([1.0, 2.0], resamples=99)
