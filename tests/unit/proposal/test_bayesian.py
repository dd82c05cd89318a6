import dataclasses

import numpy as np
import pytest
import torch

from ckptmerge.domain.baselines import initial_design
from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.proposal import bayesian
from ckptmerge.proposal.acquisition import NEAREST
from ckptmerge.proposal.bayesian import propose
from ckptmerge.proposal.request import ObservedPoint, ProposalRequest, request_from_json

OPTIMUM = (0.0, 0.1, 0.3, 0.6)
SPACE = SearchSpace.simplex(4)


def loss(weights):
    """A skewed basin, 0.3 to 1 bit per byte deep, whose minimum is at OPTIMUM."""
    apart = np.array(weights.values) - OPTIMUM
    bent = np.cumsum(apart)
    return 1.0 + 0.5 * apart @ apart + 0.4 * bent @ bent + 0.2 * (bent**3).sum()


def observe(designs, function=loss):
    return tuple(ObservedPoint(weights, float(function(weights))) for weights in designs)


def request(space=SPACE, function=loss, **changes):
    observations = observe(initial_design(space.size).values(), function)
    fields = {"observations": observations, "pending": (), "seed": 0, "index": 9, **changes}
    return ProposalRequest(space=space, **fields)


def distance(first, second):
    return float(np.linalg.norm(np.subtract(first.values, second.values)))


def search(space, function, passes):
    """Run a search and return the losses it measured beyond the initial design."""
    asked = request(space, function, index=0)
    begun = len(asked.observations)
    for index in range(passes):
        asked = dataclasses.replace(asked, index=index)
        new = observe([propose(asked).weights], function)
        asked = dataclasses.replace(asked, observations=asked.observations + new)
    return [point.value for point in asked.observations[begun:]]


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-0.3, 1.5)])
def test_a_simplex_is_searched_to_its_optimum_in_a_few_passes(bounds):
    best = min(search(SearchSpace.simplex(4, *bounds), loss, 5))
    assert best - 1.0 < 1e-4


@pytest.mark.parametrize("optimum", [0.35, 1.2])
def test_a_pair_is_solved_by_its_first_candidate_where_the_loss_is_a_parabola(optimum):
    proposal = propose(
        request(SearchSpace.pair(), lambda w: 2 + 0.3 * (w.values[1] - optimum) ** 2)
    )
    assert proposal.weights.values[1] == pytest.approx(optimum, abs=0.01)


def test_a_pair_with_a_bent_loss_reaches_its_optimum_in_three_passes():
    def bent(weights):
        apart = weights.values[1] - 0.7
        return 2 + 0.3 * apart**2 + 0.1 * apart**3 + 0.05 * apart**4

    assert min(search(SearchSpace.pair(), bent, 3)) - 2 < 1e-5


@pytest.mark.parametrize("variance", [0.0, 0.3])
def test_the_same_request_gives_the_same_bits(variance):
    # Under noise several observations may be the best one, and which are kept is sampled.
    asked = request()
    noisy = tuple(dataclasses.replace(p, variance=variance) for p in asked.observations)
    asked = dataclasses.replace(asked, observations=noisy)
    torch.manual_seed(123)
    first = propose(asked)
    for seed in (321, 322, 323):
        torch.manual_seed(seed)
        assert propose(request_from_json(asked.as_json())) == first


def test_a_proposal_leaves_the_global_randomness_and_threads_as_they_were():
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    propose(request())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_another_index_may_look_elsewhere_where_nothing_is_known():
    nothing = request(observations=())
    assert propose(nothing).weights != propose(dataclasses.replace(nothing, index=10)).weights


def test_pending_candidates_are_not_proposed_again():
    asked = request()
    for _ in range(4):
        weights = propose(asked).weights
        known = [*(point.weights for point in asked.observations), *asked.pending]
        assert min(distance(weights, other) for other in known) >= NEAREST
        asked = dataclasses.replace(asked, pending=(*asked.pending, weights))


def test_a_candidate_being_measured_nearby_makes_a_place_less_worth_measuring():
    alone = propose(request())
    nearby = np.array(alone.weights.values) * 0.99 + 0.01 / SPACE.size
    beside = propose(request(pending=(MergeWeights.normalised(nearby),)))
    assert beside.expected_improvement < 0.1 * alone.expected_improvement


def test_an_optimum_already_measured_is_not_measured_again():
    measured = observe([MergeWeights.of(*OPTIMUM)])
    asked = request()
    asked = dataclasses.replace(asked, observations=asked.observations + measured)
    weights = propose(asked).weights
    assert distance(weights, measured[0].weights) >= NEAREST


def test_a_noisy_corner_that_is_best_is_not_measured_again():
    # With noise, the corner's own improvement is the largest; it was measured all the same.
    noisy = tuple(
        dataclasses.replace(point, variance=1e-3)
        for point in request(function=lambda w: 2 - w.values[-1]).observations
    )
    proposal = propose(request(observations=noisy))
    assert min(distance(proposal.weights, point.weights) for point in noisy) >= NEAREST


def test_the_incumbent_is_best_by_posterior_mean_not_by_a_lucky_number():
    lucky = ObservedPoint(MergeWeights.of(0.2, 0.2, 0.2, 0.4), 0.9, variance=1.0)
    honest = ObservedPoint(MergeWeights.of(0.0, 0.12, 0.28, 0.6), 1.0005)
    design = request().observations
    proposal = propose(request(observations=(*design, lucky, honest)))
    assert proposal.incumbent == len(design) + 1


def test_a_candidate_stays_near_the_incumbent_while_a_quadratic_is_not_determined():
    def steep(weights):
        return 2 - weights.values[-1]

    space = SearchSpace.simplex(8, -0.3, 1.5)
    begun = request(space, steep)
    moved = np.subtract(propose(begun).weights.values, MergeWeights.vertex(8, -1).values)
    assert 0.05 < np.abs(moved).max() < 0.1
    pair = propose(request(SearchSpace.pair(), steep))
    assert pair.weights.values[1] > 1.3


def test_the_expected_improvement_is_in_bits_per_byte():
    asked = request()
    scaled = tuple(
        dataclasses.replace(point, value=10 * point.value) for point in asked.observations
    )
    once, ten = propose(asked), propose(dataclasses.replace(asked, observations=scaled))
    assert ten.expected_improvement == pytest.approx(10 * once.expected_improvement, rel=0.01)
    best = min(point.value for point in asked.observations)
    assert 0 < once.expected_improvement < 2 * (best - 1.0)


@pytest.mark.parametrize(
    ("observations", "reason"),
    [
        ((), "fewer than two"),
        (observe([MergeWeights.vertex(4, 0)]), "fewer than two"),
        (observe(initial_design(4).values(), lambda _: 1.0), "alike"),
        (observe([MergeWeights.vertex(4, 0)] * 3), "alike"),
    ],
)
def test_without_a_model_the_space_is_filled_and_the_proposal_says_so(observations, reason):
    proposal = propose(request(observations=observations))
    assert reason in proposal.fallback
    assert SPACE.holds(proposal.weights)
    assert proposal.stop is None
    known = [point.weights for point in observations]
    assert all(distance(proposal.weights, other) > 0.1 for other in known)


def test_a_failed_fit_falls_back_instead_of_failing(monkeypatch):
    def refuse(*_, **__):
        raise bayesian.FIT_ERRORS[0]("singular")

    monkeypatch.setattr(bayesian, "fit", refuse)
    proposal = propose(request())
    assert "singular" in proposal.fallback
    best = min(range(len(request().observations)), key=lambda i: request().observations[i].value)
    assert proposal.incumbent == best


def test_repeated_observations_of_one_point_do_not_stop_a_fit():
    design = request().observations
    proposal = propose(request(observations=design * 3))
    assert proposal.fallback is None


def test_one_diverged_checkpoint_does_not_hide_the_basin():
    def broken(weights):
        return loss(weights) + 30.0 * weights.values[0] ** 2

    begun = min(point.value for point in request(function=broken).observations)
    assert min(search(SPACE, broken, 4)) < begun


@pytest.mark.parametrize("size", [2, 3, 16])
def test_a_space_of_any_size_gets_a_legal_candidate(size):
    space = SearchSpace.pair() if size == 2 else SearchSpace.simplex(size, -0.3, 1.5)
    ramp = np.arange(size) / np.arange(size).sum()
    proposal = propose(
        request(space, lambda w: 1 + float(np.square(np.array(w.values) - ramp).sum()))
    )
    assert proposal.fallback is None
    assert space.holds(proposal.weights)
