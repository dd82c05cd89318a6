import json

import pytest

from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import InvalidInputError
from ckptmerge.proposal.request import (
    ObservedPoint,
    Proposal,
    ProposalRequest,
    proposal_from_json,
    request_from_json,
)


def request(**changes):
    fields = {
        "space": SearchSpace.simplex(2, -0.3, 1.5),
        "observations": (
            ObservedPoint(MergeWeights.of(0.1, 0.9), 0.1 + 0.2, 1e-17, (1 / 3, 2 / 3)),
        ),
        "pending": (MergeWeights.of(1 - 0.1, 0.1),),
        "seed": 7,
        "index": 3,
        **changes,
    }
    return ProposalRequest(**fields)


def proposal():
    return Proposal(MergeWeights.of(0.3, 0.7), 0, 1 / 3, 1e-9, stop=None, fallback="no fit")


def test_a_request_survives_json_to_the_last_bit():
    assert request_from_json(request().as_json()) == request()


def test_a_proposal_survives_json_to_the_last_bit():
    assert proposal_from_json(proposal().as_json()) == proposal()


def test_a_request_is_one_line():
    assert "\n" not in request().as_json()


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("seed",), True, "expected an integer"),
        (("seed",), 1.0, "expected an integer"),
        (("seed",), -1, "negative"),
        (("extra",), 1, "expected the keys"),
        (("space", "kind"), "sphere", "unknown kind"),
        (("space", "lower"), ["0", 0], "expected a number"),
        (("space", "lower"), [0], "bounds"),
        (("observations", 0, "value"), None, "expected a number"),
        (("observations", 0, "value"), False, "expected a number"),
        (("observations", 0, "variance"), -1.0, "negative"),
        (("observations", 0, "weights"), [0.5, 0.6], "sum to 1"),
        (("pending", 0), [1.0], "checkpoints"),
        (("pending",), {}, "expected a list"),
    ],
)
def test_a_request_with_a_wrong_value_is_refused(path, value, complaint):
    fields = json.loads(request().as_json())
    *parents, last = path
    inner = fields
    for step in parents:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(InvalidInputError, match=complaint):
        request_from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not one line of JSON"),
        ("[]", "expected the keys"),
        ('{"seed": 1}', "expected the keys"),
        (request().as_json().replace('"seed":7', '"seed":7,"seed":8'), "stands twice"),
        (request().as_json().replace('"variance":1e-17', '"variance":NaN'), "finite"),
        (request().as_json().replace('"variance":1e-17', '"variance":1e999'), "finite"),
    ],
)
def test_what_is_no_request_is_refused(text, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        request_from_json(text)


def test_a_proposal_whose_reason_is_no_text_is_refused():
    text = proposal().as_json().replace('"no fit"', "1")
    with pytest.raises(InvalidInputError, match="expected a text or null"):
        proposal_from_json(text)


def test_points_resampled_unequally_often_are_refused():
    points = tuple(
        ObservedPoint(MergeWeights.vertex(2, j), 1.0, 0.0, (1.0,) * count)
        for j, count in enumerate((2, 3))
    )
    with pytest.raises(InvalidInputError, match="equally many replicates"):
        request(observations=points)


def test_an_observation_that_is_not_finite_is_refused():
    with pytest.raises(InvalidInputError, match="must be finite"):
        ObservedPoint(MergeWeights.of(0.5, 0.5), float("inf"))
