"""The real service on PostgreSQL: both are killed, and the result is the same."""

from pathlib import Path

from ckptmerge.client.client import Client
from ckptmerge.errors import ServiceError
from service.database import VARIABLE
from tests.e2e.running import RunningService, decided, wait_for
from tests.e2e.searched import assert_same, search, search_alone
from tests.integration.postgres_server import PostgresServer

STEPS, BUDGET = 2, 6
"""A short study; the longer, the more there is to wait for."""


def observed(client: Client, study: str) -> int:
    """Count the measured candidates; none while the service cannot answer."""
    try:
        return sum(trial.state == "observed" for trial in client.trials(study))
    except ServiceError:
        return 0


def test_a_study_outlives_a_crash_of_its_database_and_a_kill_of_its_service(
    trained_run, postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    checkpoints = trained_run.checkpoints[-STEPS:]
    running = RunningService(tmp_path, trained_run.held_out, environ={VARIABLE: postgres_url})
    with running as service, Client(service.url) as client:
        (worker,) = service.processes("worker --url")
        assert VARIABLE.encode() not in Path(f"/proc/{worker}/environ").read_bytes()
        search(client, checkpoints, budget=BUDGET)
        study = next(iter(client.studies("run"))).id
        wait_for(lambda: observed(client, study) >= 1, 120, service.log)
        postgres_server.restart("immediate")
        wait_for(lambda: observed(client, study) >= 2, 120, service.log)
        assert not decided(client, "run"), "the study was over before the service was killed"
        service.kill()
        service.start()
        wait_for(lambda: decided(client, "run"), 180, service.log)
        best = client.best("run").answer
    assert not (tmp_path / "data" / "ckptmerge.sqlite").exists()
    assert_same(best, search_alone(
        checkpoints, trained_run.held_out, tmp_path / "looks", budget=BUDGET
    ).best())  # fmt: skip
