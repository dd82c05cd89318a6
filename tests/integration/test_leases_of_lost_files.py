"""Tasks whose files are lost: they fail with the reason, and no other task waits behind them."""

import httpx2
import pytest

from ckptmerge.domain.task import TaskState
from ckptmerge.storage.records import CheckpointRecord, HeldOutRecord, TaskRecord
from tests.integration.conducted_service import ConductedService, conducted_service


@pytest.fixture
def service(tmp_path):
    with conducted_service(tmp_path) as running:
        running.world.arrive(10)
        running.world.arrive(20)
        running.queue_tasks()
        yield running


def lease(service: ConductedService) -> httpx2.Response:
    return httpx2.post(f"{service.url}/v1/leases", json={"worker": "w", "wait": 0})


def test_a_task_whose_checkpoint_is_lost_fails_and_says_so(service) -> None:
    lost = service.world.all(CheckpointRecord)[0].manifest.files[0].digest
    service.world.blobs.delete(lost)
    assert lease(service).status_code == 204, "no task of this study can be done any more"
    tasks = service.world.all(TaskRecord)
    assert {task.state for task in tasks} == {TaskState.FAILED}
    assert all(lost.hex in (task.task.reason or "") for task in tasks)


def test_lost_documents_fail_the_study_and_no_lease_is_refused(service) -> None:
    service.world.blobs.delete(service.world.all(HeldOutRecord)[0].file.digest)
    assert lease(service).status_code == 204
    study = service.world.conclude()
    assert study.state == "refused"
    assert "could not be scored" in (study.stopped or "")
