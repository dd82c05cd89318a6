import dataclasses
from functools import cache

import pytest

from ckptmerge.domain.baselines import initial_design
from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import RefusedError
from ckptmerge.proposal.bayesian import propose
from ckptmerge.proposal.belief import PosteriorRequest
from ckptmerge.proposal.posterior import POINTS, posterior
from ckptmerge.proposal.request import ObservedPoint, ProposalRequest

OPTIMUM = 0.7
believe = cache(posterior)
"""Each request is fitted once for all tests; one of them computes another again."""


def parabola(weights):
    return 2 + 0.3 * (weights.values[-1] - OPTIMUM) ** 2


def tenfold(weights):
    return 10 * parabola(weights)


def bowl(weights):
    return 2 + 0.5 * sum((w - 1 / 3) ** 2 for w in weights.values[:-1]) + 0.1 * weights.values[0]


def observe(points, loss, replicates=()):
    return tuple(
        ObservedPoint(w, loss(w), replicates=tuple(loss(w) + shift for shift in replicates))
        for w in points
    )


def pair(shares=(1.0, 0.0, 0.5, 0.25), loss=parabola, candidates=(), **changes):
    points = [MergeWeights.of(1 - share, share) for share in shares]
    study = ProposalRequest(
        SearchSpace.pair(), observe(points, loss, **changes), (), seed=0, index=len(points)
    )
    return PosteriorRequest(study, tuple(MergeWeights.of(1 - c, c) for c in candidates))


def simplex(loss=bowl):
    points = initial_design(3).values()
    return PosteriorRequest(
        ProposalRequest(SearchSpace.simplex(3), observe(points, loss), (), seed=0, index=7)
    )


def test_what_was_measured_is_believed():
    request = pair()
    for point, seen in zip(believe(request).observed, request.study.observations, strict=True):
        assert point.weights == seen.weights
        assert point.mean == pytest.approx(seen.value, abs=1e-6)
        assert 0 < point.sd < 1e-4


def test_between_measurements_a_parabola_is_foreseen_and_doubted():
    for point in believe(pair(candidates=(0.8, 0.1))).candidates:
        assert point.mean == pytest.approx(parabola(point.weights), abs=1e-3)
        assert point.sd > 1e-6


def test_doubt_shrinks_as_data_come():
    few = believe(pair(candidates=(1.4,))).candidates[0]
    many = believe(pair((1.0, 0.0, 0.5, 0.25, 1.5, 1.3, 0.75), candidates=(1.4,))).candidates[0]
    assert many.sd < few.sd / 3
    assert many.gain_sd < few.gain_sd / 3


def test_doubt_is_in_the_unit_of_the_losses():
    small = believe(pair(candidates=(0.8,))).candidates[0]
    large = believe(pair(loss=tenfold, candidates=(0.8,))).candidates[0]
    assert large.sd == pytest.approx(10 * small.sd, rel=1e-3)
    assert large.gain == pytest.approx(10 * small.gain, rel=1e-3)


def test_a_gain_is_over_the_newest_checkpoint_and_certain_there():
    believed = believe(pair(candidates=(OPTIMUM,)))
    newest = believed.observed[0]
    assert newest.gain == pytest.approx(0, abs=1e-12)
    assert newest.gain_sd < 1e-9
    best = believed.candidates[0]
    assert best.gain == pytest.approx(newest.mean - best.mean, abs=1e-12)
    assert best.gain == pytest.approx(0.3 * (1 - OPTIMUM) ** 2, abs=1e-3)


def test_the_deviation_of_a_gain_knows_that_both_move_together():
    # Far from everything known two neighbours share their doubt, and so it cancels.
    far = pair((0.0, 0.25, 0.5, 0.6), candidates=(0.99,))
    point = believe(far).candidates[0]
    assert point.gain_sd < point.sd / 2


def test_incumbent_expectation_and_floor_are_those_of_the_next_proposal():
    shifts = (0.001, -0.002, 0.0)
    request = pair(replicates=shifts)
    believed, proposal = believe(request), propose(request.study)
    assert believed.incumbent == proposal.incumbent
    assert believed.expected_improvement == proposal.expected_improvement
    assert believed.floor == proposal.floor
    assert believe(pair()).floor is None


def test_the_line_of_a_pair_runs_over_all_that_is_searched():
    line = believe(pair()).line
    assert (line.begin, line.end) == ("oldest", "newest")
    assert len(line.points) == len(line.at) == POINTS == 51
    assert (line.at[0], line.at[-1]) == (-0.25, 1.5)
    for at, point in zip(line.at, line.points, strict=True):
        assert point.weights.values == pytest.approx((1 - at, at))
    best = min(line.points, key=lambda point: point.mean)
    assert best.weights.values[1] == pytest.approx(OPTIMUM, abs=0.04)


def test_the_line_of_a_fenced_pair_shows_both_checkpoints():
    study = dataclasses.replace(pair().study, space=SearchSpace.pair(0.2, 0.8))
    line = posterior(PosteriorRequest(study)).line
    assert (line.at[0], line.at[-1]) == (0.0, 1.0)


def test_the_line_of_a_simplex_runs_from_the_newest_through_the_incumbent_to_a_bound():
    believed = believe(simplex())
    line, incumbent = believed.line, believed.observed[believed.incumbent]
    assert (line.begin, line.end) == ("newest", "incumbent")
    assert line.at[0] == 0
    assert line.at[-1] > 1
    assert line.points[0].weights == MergeWeights.vertex(3, -1)
    ends = zip((0, 0, 1), incumbent.weights.values, line.points[-1].weights.values, strict=True)
    for begin, through, last in ends:
        assert last == pytest.approx(begin + line.at[-1] * (through - begin), abs=1e-12)
    assert all(SearchSpace.simplex(3).holds(point.weights) for point in line.points)


def test_where_the_newest_is_best_the_line_runs_to_the_uniform_average():
    line = believe(simplex(lambda w: 3 - w.values[-1])).line
    assert (line.begin, line.end) == ("newest", "uniform")


def test_the_same_request_gives_the_same_bits():
    first = believe(simplex())
    propose(pair().study)
    assert posterior(simplex()) == first


def test_too_few_observations_are_said_to_be_too_few():
    with pytest.raises(RefusedError, match=r"3 observations .* when there are 4"):
        believe(pair((1.0, 0.0, 0.5)))
    believe(pair((1.0, 0.0, 0.5, 0.6)))


def test_losses_that_are_all_alike_say_nothing():
    with pytest.raises(RefusedError, match="all alike"):
        believe(pair(loss=lambda _: 2.0))
