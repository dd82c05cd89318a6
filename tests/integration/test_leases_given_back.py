"""Leases that are given back: another worker has the task at once, not when the lease runs out."""

import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import httpx2
import pytest

from ckptmerge.domain.task import TaskState
from ckptmerge.storage.records import TaskRecord
from tests.integration.conducted_service import ConductedService, conducted_service

TTL = 60.0
AT_ONCE = TTL / 4
"""Seconds; far below a lease's time on any machine."""

WORKER = """
    import sys, time
    from ckptmerge.workflow.carry_out import Workbench
    from service.commands import worker
    from service.worker import Worker

    def stuck(*_, **__):
        print("begun", flush=True)
        time.sleep(600)

    Worker._product = stuck
    worker(url=sys.argv[1], name="first")
"""


@pytest.fixture
def service(tmp_path) -> Iterator[ConductedService]:
    """A study that waits for its first task to be done."""
    with conducted_service(tmp_path, lease_ttl=TTL) as running:
        running.world.arrive(10)
        running.world.arrive(20)
        running.queue_tasks()
        yield running


@pytest.fixture
def http(service) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=service.url, timeout=TTL) as opened:
        yield opened


def lease(http: httpx2.Client, worker: str, wait: float = 0.0) -> dict:
    answer = http.post("/v1/leases", json={"worker": worker, "wait": wait})
    assert answer.status_code == 201
    return answer.json()


def test_a_task_that_is_given_back_goes_to_the_next_worker_with_a_higher_fence(
    http, service
) -> None:
    first = lease(http, "a")
    path = f"/v1/leases/{first['id']}"
    assert http.delete(path, params={"fence": 1}).status_code == 204
    assert http.delete(path, params={"fence": 1}).status_code == 204, "again changes nothing"
    second = lease(http, "b")
    assert (second["id"], second["fence"]) == (first["id"], 2)
    late = http.delete(path, params={"fence": 1})
    assert (late.status_code, late.json()["type"]) == (409, "/problems/lease-lost")
    assert http.put(path, json={"fence": 2}).json()["directive"] == "continue"
    study = service.world.studies()[-1].id
    assert http.get(f"/v1/studies/{study}/trials").json()["items"][0]["attempts"] == 1


def test_what_is_no_lease_cannot_be_given_back(http) -> None:
    assert http.delete("/v1/leases/l_none", params={"fence": 1}).status_code == 404
    held = lease(http, "a")
    assert http.delete(f"/v1/leases/{held['id']}").status_code == 422
    assert http.delete(f"/v1/leases/{held['id']}", params={"fence": 0}).status_code == 422


def test_a_worker_that_waits_hears_of_a_task_given_back(http, service) -> None:
    from concurrent.futures import ThreadPoolExecutor

    held = [lease(http, f"w{n}") for n in range(len(service.world.all(TaskRecord)))]
    with ThreadPoolExecutor(1) as waiting:
        next_one = waiting.submit(lease, http, "late", 25.0)
        while "late" not in service.state.workers:
            time.sleep(0.01)
        begun = time.monotonic()
        http.delete(f"/v1/leases/{held[0]['id']}", params={"fence": 1})
        assert next_one.result()["id"] == held[0]["id"]
        assert time.monotonic() - begun < AT_ONCE


def test_a_worker_that_has_hung_up_is_given_nothing(http, service) -> None:
    """Its task would wait for a lease that nobody knows of."""
    held = [lease(http, f"w{n}") for n in range(len(service.world.all(TaskRecord)))]
    port = int(service.url.rpartition(":")[2])
    body = b'{"worker": "gone", "wait": 30}'
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(
            b"POST /v1/leases HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        while "gone" not in service.state.workers:
            time.sleep(0.01)
    time.sleep(0.1)  # for the end of the connection to be noticed
    http.delete(f"/v1/leases/{held[0]['id']}", params={"fence": 1})
    assert lease(http, "next", AT_ONCE)["fence"] == 2, "3 if it had been leased to the one gone"


def test_a_worker_that_is_told_to_stop_gives_back_what_it_was_doing(http, service) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WORKER), service.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout
            assert worker.stdout.readline() == "begun\n"
            [held] = [r for r in service.world.all(TaskRecord) if r.state == TaskState.LEASED]
            assert held.task.worker == "first"
            begun = time.monotonic()
            worker.send_signal(signal.SIGTERM)
            taken = lease(http, "second", wait=AT_ONCE)
            while taken["id"] != held.id:
                taken = lease(http, f"another-{taken['id']}", wait=AT_ONCE)
            assert time.monotonic() - begun < AT_ONCE
            assert taken["fence"] == 2
            assert worker.wait(30) == 0
        finally:
            worker.kill()
    assert next(r for r in service.world.all(TaskRecord) if r.id == held.id).task.attempts == 1
