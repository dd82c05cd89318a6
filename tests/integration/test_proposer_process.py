import os
import signal
import subprocess
import sys
import time

import pytest

from ckptmerge.domain.baselines import initial_design
from ckptmerge.domain.space import SearchSpace
from ckptmerge.errors import ProposerError
from ckptmerge.proposal.request import ObservedPoint, Proposal, ProposalRequest
from ckptmerge.workflow.proposer_process import ProposerProcess


def request(copies=1, replicates=0):
    observations = tuple(
        ObservedPoint(
            weights,
            1 + sum((w - t) ** 2 for w, t in zip(weights.values, (0.2, 0.3, 0.5), strict=True)),
            replicates=tuple(1 / (3 + r) for r in range(replicates)),
        )
        for weights in initial_design(3).values()
    )
    return ProposalRequest(SearchSpace.simplex(3), observations * copies, (), seed=1, index=4)


@pytest.fixture(scope="module")
def real():
    with ProposerProcess() as process:
        yield process


@pytest.fixture
def impostor(tmp_path, monkeypatch):
    """Start a proposer whose child runs the given source instead."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(source, timeout=20.0):
        (tmp_path / "impostor.py").write_text(source)
        return ProposerProcess(timeout=timeout, module="impostor")

    return start


def test_the_child_answers_what_the_function_answers_bit_for_bit(real):
    from ckptmerge.proposal.bayesian import propose

    assert real.propose(request()) == propose(request())


def test_a_killed_child_is_replaced_and_gives_the_same_answer(real):
    before, pid = real.propose(request()), real.pid
    os.kill(pid, signal.SIGKILL)
    assert real.propose(request()) == before
    assert real.pid != pid


def test_a_closed_proposer_leaves_no_child_and_may_be_used_again(impostor):
    answer = Proposal(request().observations[0].weights, 0, 0.5, 0.0)
    with impostor(
        f"import sys\nfor _ in sys.stdin: print({answer.as_json()!r}, flush=True)"
    ) as process:
        pid = process.pid
    assert process.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert process.propose(request()) == answer
    process.close()


def test_a_child_that_dies_twice_is_reported_with_its_last_words(impostor):
    with (
        impostor("import sys\nsys.stdin.readline()\nraise SystemError('out of luck')") as process,
        pytest.raises(ProposerError, match=r"died twice[\s\S]*out of luck"),
    ):
        process.propose(request())
    assert process.pid is None


def test_a_child_that_dies_once_is_asked_again(impostor, tmp_path):
    answer = Proposal(request().observations[0].weights, 0, 0.5, 0.0).as_json()
    source = (
        "import pathlib, sys\n"
        f"mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "sys.stdin.readline()\n"
        "if not mark.exists():\n"
        "    mark.touch()\n"
        "    sys.exit(3)\n"
        f"print({answer!r}, flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with impostor(source) as process:
        assert process.propose(request()).expected_improvement == 0.5


@pytest.mark.parametrize("copies", [1, 400], ids=["small", "more than a pipe holds"])
def test_a_child_that_never_answers_is_ended_in_time(impostor, copies):
    begun = time.monotonic()
    with (
        impostor("import time\ntime.sleep(60)", timeout=1.0) as process,
        pytest.raises(ProposerError, match="no answer within 1 s"),
    ):
        process.propose(request(copies, replicates=64))
    assert process.pid is None
    assert time.monotonic() - begun < 10


def test_a_refusal_is_passed_on_and_the_child_lives(impostor):
    source = (
        'import sys\nfor _ in sys.stdin: print(\'{"error": "seed: expected an integer"}\', '
        "flush=True)"
    )
    with impostor(source) as process:
        pid = process.pid
        with pytest.raises(ProposerError, match="refused the request: seed"):
            process.propose(request())
        assert process.pid == pid


def test_the_child_refuses_what_is_no_request_and_prints_nothing_else_on_stdout():
    child = subprocess.run(
        [sys.executable, "-m", "ckptmerge.workflow.propose"],
        input='{"seed": 1}\nnonsense\n',
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answers = child.stdout.splitlines()
    assert len(answers) == 2
    assert all(answer.startswith('{"error": ') for answer in answers)


def test_the_asking_side_loads_no_torch():
    probe = "import sys, ckptmerge.workflow.proposer_process; print('torch' in sys.modules)"
    child = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True
    )
    assert child.stdout.strip() == "False"
