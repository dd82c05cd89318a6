"""Posteriors of the proposer's process: a second kind of line, and the first stays what it is."""

import json

import pytest

from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import ProposerError, RefusedError
from ckptmerge.proposal.belief import PosteriorRequest
from ckptmerge.proposal.request import ObservedPoint, ProposalRequest
from ckptmerge.workflow.proposer_process import ProposerProcess

SHARES = (1.0, 0.0, 0.5, 0.25)
POINTS = tuple(
    ObservedPoint(MergeWeights.of(1 - share, share), 2 + 0.3 * (share - 0.7) ** 2)
    for share in SHARES
)
STUDY = ProposalRequest(SearchSpace.pair(), POINTS, (), seed=1, index=4)
ASKED = PosteriorRequest(STUDY, (MergeWeights.of(0.4, 0.6),))


def test_the_child_answers_both_kinds_bit_for_bit_in_any_order():
    from ckptmerge.proposal.bayesian import propose
    from ckptmerge.proposal.posterior import posterior

    with ProposerProcess() as process:
        pid = process.pid
        assert process.posterior(ASKED) == posterior(ASKED)
        assert process.propose(STUDY) == propose(STUDY)
        with pytest.raises(RefusedError, match="2 observations"):
            process.posterior(
                PosteriorRequest(ProposalRequest(STUDY.space, POINTS[:2], (), seed=1, index=2))
            )
        assert process.propose(STUDY) == propose(STUDY)
        assert process.pid == pid


def test_a_posterior_request_that_is_none_is_an_error_and_no_refusal():
    from ckptmerge.workflow.propose import answer

    wrong = json.loads(ASKED.as_json())
    wrong["candidates"] = [[0.4, 0.7]]
    assert "sum to 1" in json.loads(answer(json.dumps(wrong)))["error"]


def test_an_error_of_the_child_is_not_taken_for_a_posterior(tmp_path, monkeypatch):
    (tmp_path / "impostor.py").write_text(
        'import sys\nfor _ in sys.stdin: print(\'{"error": "what?"}\', flush=True)'
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        ProposerProcess(module="impostor") as process,
        pytest.raises(ProposerError, match="refused the request: what"),
    ):
        process.posterior(ASKED)
