"""The study that the tests of the service run, in a service or in one process, and what is same."""

from collections.abc import Sequence
from pathlib import Path

from ckptmerge import optimize
from ckptmerge.client.client import Client
from ckptmerge.wire.best import Best
from ckptmerge.workflow.outcome import OptimizedStudy

STEPS = 4
BUDGET = 9


def run_of(steps: int = STEPS, budget: int = BUDGET) -> dict[str, object]:
    """Describe a run whose only study is over so many checkpoints."""
    return {
        "name": "run",
        "study": {"budget": budget},
        "window": {"size": steps, "every": steps, "minimum": steps},
    }


def search(client: Client, checkpoints: Sequence[Path], *, budget: int = BUDGET) -> None:
    """Make the run and hand its checkpoints over; with the last one the study opens."""
    client._session.json("POST", "/v1/runs", run_of(len(checkpoints), budget))
    for checkpoint in checkpoints:
        client.push(checkpoint, run="run")


def search_alone(
    checkpoints: Sequence[Path], held_out: Path, looks: Path, *, budget: int = BUDGET
) -> OptimizedStudy:
    """Run the same study in one process."""
    return optimize(checkpoints, held_out=held_out, budget=budget, run="run", looks=looks)


def assert_same(best: Best, local: Best) -> None:
    assert best.promoted
    assert [w.weight for w in best.weights or ()] == [w.weight for w in local.weights or ()]
    assert best.score is not None
    assert local.score is not None
    assert abs(best.score.mean - local.score.mean) < 0.002
    assert best.certificate is not None
    assert best.certificate.test == 1, "a repeated test would have spent alpha twice"
