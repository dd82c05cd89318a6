"""Workers that wait for work: one hears of a task, at once, and the others are left in peace."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from ckptmerge.storage.records import TaskRecord
from tests.integration.conducted_service import ConductedService, conducted_service

WAITING = 12
WAIT = 6.0
"""Seconds that each of them waits."""


@pytest.fixture
def service(tmp_path) -> Iterator[ConductedService]:
    with conducted_service(tmp_path) as running:
        running.world.arrive(10)
        running.world.arrive(20)
        running.queue_tasks()
        yield running


@pytest.fixture
def http(service) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=service.url, timeout=60) as opened:
        yield opened


def lease(http: httpx2.Client, worker: str, wait: float = 0, kind: str = "evaluate") -> Any:
    wanted = {"worker": worker, "wait": wait, "kinds": [kind]}
    return http.post("/v1/leases", json=wanted)


def count_writes(service: ConductedService) -> Counter[str]:
    """Count from now on how often the service begins to change its records."""
    writes, write = Counter[str](), service.state.write

    async def counting(change: Callable[[Any], Any]) -> Any:
        writes["all"] += 1
        return await write(change)

    service.state.write = counting
    return writes


def waiting(
    threads: ThreadPoolExecutor, http: httpx2.Client, service: ConductedService, *kinds: str
) -> list[Future[Any]]:
    """Let workers wait, each for its kind of work, in this order."""
    asked = []
    for number, kind in enumerate(kinds):
        name = f"late-{number}"
        asked.append(threads.submit(lease, http, name, WAIT, kind))
        while name not in service.state.workers:
            time.sleep(0.005)
    time.sleep(0.3)  # for the last to have looked
    return asked


@pytest.mark.parametrize("kinds", [["evaluate"] * WAITING, ["certify"] * 3 + ["evaluate"] * 9])
def test_a_task_goes_to_who_has_waited_longest_and_can_do_it_and_wakes_few(
    http, service, kinds
) -> None:
    held = [lease(http, f"w{n}").json() for n in range(len(service.world.all(TaskRecord)))]
    first = kinds.index("evaluate")
    with ThreadPoolExecutor(WAITING) as threads:
        asked = waiting(threads, http, service, *kinds)
        writes = count_writes(service)
        begun = time.monotonic()
        path = f"/v1/leases/{held[0]['id']}"
        assert http.delete(path, params={"fence": 1}).status_code == 204
        assert asked[first].result().json()["id"] == held[0]["id"]
        assert time.monotonic() - begun < WAIT / 2
        answers = [future.result().status_code for future in asked]
    assert answers == [201 if number == first else 204 for number in range(WAITING)]
    assert writes["all"] == 1 + first + 1, "the giving back, and those who looked"


def test_workers_that_wait_are_there_all_the_while(tmp_path) -> None:
    with (
        conducted_service(tmp_path, lease_ttl=1.0) as service,
        httpx2.Client(base_url=service.url, timeout=60) as http,
        ThreadPoolExecutor(1) as threads,
    ):
        service.world.arrive(10)
        answer = threads.submit(lease, http, "patient", 4.0)
        while "patient" not in service.state.workers:
            time.sleep(0.005)
        counts = set[int]()
        while not answer.done():
            counts.add(service.state.live_workers())
            time.sleep(0.05)
        assert answer.result().status_code == 204
    assert counts == {1}


def test_the_end_of_the_service_ends_all_waiting_at_once(http, service) -> None:
    for number in range(len(service.world.all(TaskRecord))):
        lease(http, f"w{number}")
    with ThreadPoolExecutor(WAITING) as threads:
        asked = waiting(threads, http, service, *["evaluate"] * WAITING)
        begun, write = time.monotonic(), service.state.write

        async def ending(change: Callable[[Any], Any]) -> Any:
            service.state.drain()  # on the event loop, as a signal has it
            return await write(change)

        service.state.write = ending
        lease(http, "last")
        assert {future.result().status_code for future in asked} == {204}
        assert time.monotonic() - begun < WAIT / 2
