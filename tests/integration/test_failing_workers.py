"""Workers that fail at what others can do, that hang, or that talk of secrets: over HTTP."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from ckptmerge.domain.task import TaskState
from ckptmerge.storage.records import EventRecord, TaskRecord
from service.roster import STRIKES
from tests.integration.conducted_service import ConductedService, conducted_service
from tests.integration.whole_service import TOKEN, serving, whole_app

AS_ADMINISTRATOR = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def service(tmp_path) -> Iterator[ConductedService]:
    """A study whose initial design waits to be measured: more tasks than a worker may fail at."""
    with conducted_service(tmp_path) as running:
        for step in (10, 20, 30, 40):
            running.world.arrive(step)
        running.world.conclude()  # the first study's, over the first two
        running.world.arrive(50)
        running.queue_tasks()
        yield running


@pytest.fixture
def http(service) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=service.url, timeout=30) as opened:
        yield opened


def ask(http: httpx2.Client, worker: str) -> dict[str, Any] | None:
    answer = http.post("/v1/leases", json={"worker": worker})
    return answer.json() if answer.status_code == 201 else None


def fail(http: httpx2.Client, lease: dict[str, Any], **said: str) -> None:
    body = {"fence": lease["fence"], "status": "failed", "reason": "no such device", **said}
    http.post(f"/v1/leases/{lease['id']}/outcome", json=body).raise_for_status()


def do(http: httpx2.Client, service: ConductedService, lease: dict[str, Any]) -> None:
    """Do a lease as it should be done, and report it."""
    [record] = [r for r in service.world.all(TaskRecord) if r.id == lease["id"]]
    outcome = service.world.work(record.task)
    body = {
        "fence": lease["fence"], "status": "ok", "scores": str(outcome.scores),
        "repeated": outcome.repeated and str(outcome.repeated),
    }  # fmt: skip
    http.post(f"/v1/leases/{lease['id']}/outcome", json=body).raise_for_status()


def quarantined(http: httpx2.Client, service: ConductedService) -> None:
    """Let one worker fail at everything, and another one do what it failed at."""
    assert ask(http, "good") is not None
    for _ in range(STRIKES):
        lease = ask(http, "bad")
        assert lease is not None
        fail(http, lease)
    assert not service.state.workers.is_quarantined("bad"), "nobody else could do it yet"
    while not service.state.workers.is_quarantined("bad"):
        lease = ask(http, "good")
        assert lease is not None
        do(http, service, lease)


def kinds(service: ConductedService) -> list[str]:
    return [event.kind for event in service.world.all(EventRecord)]


def test_a_worker_that_fails_at_what_others_do_is_given_no_more_work(http, service) -> None:
    quarantined(http, service)
    assert [r for r in service.world.all(TaskRecord) if r.state == TaskState.QUEUED]
    assert ask(http, "bad") is None
    assert ask(http, "bad-started-anew") is not None
    assert not [r for r in service.world.all(TaskRecord) if r.state == TaskState.FAILED]


def test_a_quarantine_can_be_seen(http, service) -> None:
    quarantined(http, service)
    [event] = [e for e in service.world.all(EventRecord) if e.kind == "worker-quarantined"]
    assert event.data["worker"] == "bad"
    assert str(STRIKES) in event.data["reason"]
    shown = http.get("/metrics").text
    assert 'ckptmerge_workers{state="quarantined"} 1.0' in shown
    assert 'ckptmerge_workers{state="working"} 1.0' in shown


def test_who_asks_whether_the_service_is_ready_hears_of_quarantines(tmp_path) -> None:
    with serving(whole_app(tmp_path)) as url:
        httpx2.post(f"{url}/v1/leases", json={"worker": "w"}, headers=AS_ADMINISTRATOR)
        ready = httpx2.get(f"{url}/readyz").json()
    assert ready["workers"] == {"working": 1, "quarantined": 0}


def test_a_study_does_not_wait_for_a_worker_in_quarantine_where_there_is_no_other(
    http, service
) -> None:
    quarantined(http, service)
    service.state.workers.forget("good")
    assert ask(http, "bad") is not None
    [event] = [e for e in service.world.all(EventRecord) if e.kind == "quarantine-ended"]
    assert event.data["worker"] == "bad"
    assert "nobody else" in event.data["reason"]


def test_what_a_failed_worker_said_is_shown_without_secrets(http, service) -> None:
    said = "Traceback: GET http://me:hunter2@store/x?token=abc&sig failed, Bearer sesame"
    for worker in ("a", "b", "c"):
        lease = ask(http, worker)
        assert lease is not None
        fail(http, lease, code="cuda-oom", log=said, reason=f"on {worker}: token=abc")
    service.queue_tasks()
    study = service.world.studies()[-1]
    [failed] = [t for t in shown_trials(http, study.id) if t["code"] == "cuda-oom"]
    assert failed["state"] == "failed"
    assert failed["log"].startswith("Traceback: GET http://[redacted]@store/x?token=[redacted]")
    assert failed["reason"] == "on c: token=[redacted]"
    everything = http.get("/v1/events", params={"follow": False}).text + str(failed)
    assert "task-failed" in everything
    for secret in ("hunter2", "abc", "sesame"):
        assert secret not in everything


def shown_trials(http: httpx2.Client, study: str) -> list[dict[str, Any]]:
    return http.get(f"/v1/studies/{study}/trials").json()["items"]


@pytest.mark.parametrize(("code", "why"), [(-9, "killed"), (137, "killed"), (1, "crashed")])
def test_a_worker_that_died_leaves_its_last_words_with_its_task(http, service, code, why) -> None:
    lease = ask(http, "dead")
    assert lease is not None
    service.state.give_up_worker("dead", code, "x" * 10_000 + " token=abc the end")
    [trial] = [
        t
        for t in shown_trials(http, service.world.studies()[-1].id)
        if t["trial"] == lease["trial"]
    ]
    assert (trial["code"], trial["state"]) == (why, "pending")
    assert trial["log"].endswith(" token=[redacted] the end")
    assert len(trial["log"]) == 8192


def test_a_heartbeat_says_when_the_lease_ends_for_good(tmp_path) -> None:
    from dataclasses import replace

    with conducted_service(tmp_path) as running, httpx2.Client(base_url=running.url) as http:
        limits = running.state.settings.limits.model_copy(update={"longest_task": 20.0})
        running.state.settings = running.state.settings.model_copy(update={"limits": limits})
        for step in (10, 20):
            running.world.arrive(step)
        running.queue_tasks()
        lease = ask(http, "slow")
        assert lease is not None
        beat = http.put(f"/v1/leases/{lease['id']}", json={"fence": 1}).json()
        assert 0 < beat["expires_in"] <= 20.0
        with running.world.store.write() as unit:
            [record] = [r for r in unit.find(TaskRecord) if r.id == lease["id"]]
            unit.update(replace(record, task=replace(record.task, deadline=0.0)))
        assert http.put(f"/v1/leases/{lease['id']}", json={"fence": 1}).json()["expires_in"] == 0
