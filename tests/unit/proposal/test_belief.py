import json

import pytest

from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import InvalidInputError
from ckptmerge.proposal.belief import (
    Posterior,
    PosteriorRequest,
    Prediction,
    Slice,
    asks_for_posterior,
    posterior_from_json,
    posterior_request_from_fields,
)
from ckptmerge.proposal.request import ObservedPoint, ProposalRequest

STUDY = ProposalRequest(
    SearchSpace.pair(), (ObservedPoint(MergeWeights.of(0.1, 0.9), 0.1 + 0.2),), (), seed=1, index=1
)
REQUEST = PosteriorRequest(STUDY, (MergeWeights.of(1 - 0.1, 0.1),))
POINT = Prediction(MergeWeights.of(0.3, 0.7), 1 / 3, 1e-9, 0.1 + 0.2, 1e-17)
ANSWER = Posterior(
    observed=(POINT,),
    incumbent=0,
    expected_improvement=1 / 3,
    floor=None,
    line=Slice("oldest", "newest", (0.7,), (POINT,)),
    candidates=(POINT, POINT),
)


def test_a_request_survives_json_to_the_last_bit():
    assert posterior_request_from_fields(json.loads(REQUEST.as_json())) == REQUEST


def test_a_posterior_survives_json_to_the_last_bit():
    assert posterior_from_json(ANSWER.as_json()) == ANSWER


def test_both_are_one_line():
    assert "\n" not in REQUEST.as_json() + ANSWER.as_json()


def test_a_line_says_by_its_keys_what_it_asks_for():
    assert asks_for_posterior(json.loads(REQUEST.as_json()))
    assert not asks_for_posterior(json.loads(STUDY.as_json()))
    assert not asks_for_posterior(["posterior"])


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("extra",), 1, "expected the keys"),
        (("candidates",), {}, "expected a list"),
        (("candidates", 0), [0.5, "0.5"], "expected a number"),
        (("candidates", 0), [1.0], "weighs 1 checkpoints, the window has 2"),
        (("candidates", 0), [-9.0, 10.0], "outside the search space"),
        (("posterior", "seed"), True, "expected an integer"),
        (("posterior",), [], "expected the keys"),
    ],
)
def test_a_request_with_a_wrong_value_is_refused(path, value, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        posterior_request_from_fields(changed(REQUEST.as_json(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("floor",), "0", "expected a number"),
        (("incumbent",), 0.0, "expected an integer"),
        (("line", "end"), "middle", "unknown landmark"),
        (("line", "at"), None, "expected a list"),
        (("observed", 0, "sd"), None, "expected a number"),
        (("observed", 0, "weights"), [0.5, 0.6], "sum to 1"),
        (("candidates", 1), {}, "expected the keys"),
    ],
)
def test_a_posterior_with_a_wrong_value_is_refused(path, value, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        posterior_from_json(json.dumps(changed(ANSWER.as_json(), path, value)))


def test_a_belief_that_is_not_finite_is_none():
    with pytest.raises(InvalidInputError, match="overflow"):
        Prediction(MergeWeights.of(0.3, 0.7), 1.0, float("inf"), 0.0, 0.0)


def changed(text, path, value):
    fields = json.loads(text)
    *parents, last = path
    inner = fields
    for step in parents:
        inner = inner[step]
    inner[last] = value
    return fields
