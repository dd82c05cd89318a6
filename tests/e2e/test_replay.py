"""The next candidate follows from what is in the database, bit for bit, after a restart too."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ckptmerge.client.client import Client
from ckptmerge.client.session import Session
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.proposal.bayesian import propose
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.workflow.ask import ask, design_within
from ckptmerge.workflow.stored import load_study
from tests.e2e.running import RunningService, wait_for
from tests.torture.fake_runs import begin_run, held_out_of, is_over, running_service
from tests.torture.fake_worker import FakeWorker, KnownModels

STEPS = (10, 20, 30)
DESIGN = len(design_within(len(STEPS), 24))
SEARCHED = 3
WORKER = "w"


def searched(
    service: RunningService, run: str, context: int, after: Callable[[int, str], None]
) -> list[tuple[float, ...]]:
    """Do a study's tasks one by one; return its candidates, in order.

    Args:
        service: Where it runs.
        run: What its run is called.
        context: Another one for each, so that no score is taken from the study before.
        after: Told after every task of the search how many were done, and the study's id.
    """
    with Client(service.url) as client, Session(service.url) as session:
        begin_run(client, service.folder, run, STEPS, budget=DESIGN + SEARCHED, context=context)
        worker = FakeWorker(session, WORKER, KnownModels(held_out_of(service)))
        study, done = next(iter(client.studies(run))).id, 0
        while not is_over(client, run):
            lease = worker.ask(wait=2.0)
            if lease is not None:
                worker.report(lease)
                done += 1
                after(done, study)
        return [tuple(trial.weights) for trial in client.trials(study)]


def next_candidate(service: RunningService, copy: Path, study: str) -> MergeWeights | None:
    """Rebuild a study from a copy of the database, and name what should follow the observed."""
    shutil.copytree(service.folder / "data", copy, ignore=shutil.ignore_patterns("blobs", ".*"))
    store = SqliteStore(copy / "ckptmerge.sqlite")
    try:
        with store.read() as snapshot:
            known = load_study(snapshot, study).study
    finally:
        store.close()
    step = ask(replace(known, trials=known.observed), propose)
    return step[1].weights if isinstance(step, tuple) else None


@pytest.mark.timeout(300)
def test_a_study_whose_service_is_killed_tries_the_same_candidates(tmp_path: Path) -> None:
    foreseen: list[tuple[float, ...]] = []

    def kill(done: int, study: str) -> None:
        """Kill the service when the search goes by what was observed, and rebuild it twice."""
        if not DESIGN < done < DESIGN + SEARCHED:
            return
        with Client(service.url) as client:
            wait_for(lambda: client.study(study).trials > done, 60)
        service.kill()
        service.start()

    with running_service(tmp_path / "service") as service:
        calm = searched(service, "calm", 64, lambda _done, _study: None)
        killed = searched(service, "killed", 65, kill)
        assert killed == calm
        assert len(killed) == DESIGN + SEARCHED

        def foresee(done: int, study: str) -> None:
            """While the service is down, and all that is out has been told, ask its database."""
            if done != DESIGN + 1:
                return
            with Client(service.url) as client:
                wait_for(lambda: client.study(study).observed == done, 60)
            service.kill()
            twice = [next_candidate(service, tmp_path / name, study) for name in ("a", "b")]
            assert twice[0] == twice[1]
            service.start()
            foreseen.extend(weights.values for weights in twice if weights is not None)
            assert len(foreseen) == 2

        again = searched(service, "foreseen", 66, foresee)
    assert again == calm
    assert foreseen == [calm[DESIGN + 1]] * 2
