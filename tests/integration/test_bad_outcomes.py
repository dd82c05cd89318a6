"""What workers hand in that cannot be: refused or infeasible, and never in the way of the study."""

import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import httpx2
import numpy as np
import pytest
from safetensors.numpy import load, save

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import MAX_ATTEMPTS, TaskState
from ckptmerge.storage.records import TaskRecord
from ckptmerge.workflow.ask import proposal_request
from ckptmerge.workflow.stored import load_study
from tests.integration.conducted_service import ConductedService, conducted_service
from tests.unit.workflow.conducted import scores

BAD = 4
"""Number of the trial that is handed in wrongly: none that a study cannot do without."""

Arrays = dict[str, np.ndarray]


@pytest.fixture
def service(tmp_path) -> Iterator[ConductedService]:
    """A study over three checkpoints that waits for its initial design to be measured."""
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


def good(record: TaskRecord) -> bytes:
    assert record.task.order.split is not None
    return scores(2.5, record.task.order.split).to_bytes()


def changed(change: Callable[[Arrays], object]) -> Callable[[TaskRecord], bytes]:
    """Return scores of the right documents with something changed about their numbers."""

    def made(record: TaskRecord) -> bytes:
        content = good(record)
        arrays = {name: array.copy() for name, array in load(content).items()}
        change(arrays)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return save(arrays, metadata=header["__metadata__"])

    return made


def with_nats(value: float) -> Callable[[TaskRecord], bytes]:
    return changed(lambda arrays: arrays["nats"].__setitem__(3, value))


def of_fewer_documents(record: TaskRecord) -> bytes:
    return changed(
        lambda arrays: arrays.update({name: array[:-1] for name, array in arrays.items()})
    )(record)


def of_another_tokenizer(record: TaskRecord) -> bytes:
    return changed(lambda arrays: arrays["bytes"].__iadd__(1))(record)


INFEASIBLE = {
    "NaN": with_nats(float("nan")),
    "Infinity": with_nats(float("inf")),
    "-Infinity": with_nats(float("-inf")),
    "1e308": with_nats(1e308),
    "all 1e300": changed(lambda arrays: arrays["nats"].fill(1e300)),
}
REFUSED = {
    "empty": lambda _record: b"",
    "text": lambda _record: b'{"nats": "NaN"}',
    "strings": changed(lambda arrays: arrays.update(nats=np.frombuffer(b"2.5" * 3, np.uint8))),
    "wrong shape": changed(lambda arrays: arrays.update(nats=arrays["nats"].reshape(1, -1))),
    "too few": of_fewer_documents,
    "other documents": of_another_tokenizer,
    "negative bytes": changed(lambda arrays: arrays["bytes"].__setitem__(0, -1)),
    "no tokens": changed(lambda arrays: arrays["tokens"].fill(0)),
    "negative losses": with_nats(-500.0),
    "nothing but a header": lambda _record: save({}),
}


def hand_in(http: httpx2.Client, record: TaskRecord, content: bytes | None) -> httpx2.Response:
    """Upload scores and report a lease with them, as a worker does."""
    body: dict[str, Any] = {"fence": record.task.fence, "status": "ok"}
    if content is not None:
        digest = str(Digest.of_bytes(content))
        http.put(f"/v1/blobs/{digest}", content=content).raise_for_status()
        body |= {"scores": digest, "repeated": digest if record.task.order.repeat else None}
    return http.post(f"/v1/leases/{record.id}/outcome", json=body)


def work_to_the_end(
    service: ConductedService, http: httpx2.Client, bad: Callable[[TaskRecord], bytes | None]
) -> list[int]:
    """Do all tasks, the bad trial's as told; return how its outcomes were answered."""
    answers: list[int] = []
    world = service.world
    for _ in range(200):
        service.queue_tasks()
        record = world.lease()
        if record is None:
            return answers
        if record.task.trial != BAD:
            world.finish(record, world.work(record.task))
            continue
        answers.append(hand_in(http, record, bad(record)).status_code)
    raise AssertionError("it never ends")


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def strictly(http: httpx2.Client, path: str) -> Any:
    return json.loads(http.get(path).raise_for_status().content, parse_constant=refuse)


def require_decided_without_it(service: ConductedService, http: httpx2.Client, state: str) -> None:
    """Check that the study is decided, that the surrogate never saw it, and what is shown."""
    study = service.world.studies()[-1]
    assert study.state is StudyState.DECIDED, study.stopped
    with service.world.store.read() as snapshot:
        known = load_study(snapshot, study.id).study
    seen = proposal_request(known).observations
    assert all(np.isfinite([point.value, *point.replicates]).all() for point in seen)
    assert known.trials[BAD].observation is None
    items = strictly(http, f"/v1/studies/{study.id}/trials")["items"]
    assert (items[BAD]["state"], items[BAD]["value"]) == (state, None)
    assert items[BAD]["reason"]
    for path in (f"/v1/studies/{study.id}", "/v1/studies", "/v1/runs/run/best", "/v1/runs"):
        strictly(http, path)
    lines = http.get("/v1/events", params={"follow": False}).text.splitlines()
    told = [json.loads(x[6:], parse_constant=refuse) for x in lines if x.startswith("data: ")]
    assert any(event["kind"] == "trial-observed" for event in told)


@pytest.mark.parametrize("bad", INFEASIBLE.values(), ids=INFEASIBLE)
def test_losses_that_no_model_can_have_make_a_candidate_infeasible(service, http, bad) -> None:
    assert work_to_the_end(service, http, bad) == [200]
    require_decided_without_it(service, http, "infeasible")


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED)
def test_what_are_no_scores_of_these_documents_is_refused_as_a_failed_attempt(
    service, http, bad
) -> None:
    assert work_to_the_end(service, http, bad) == [422] * MAX_ATTEMPTS
    require_decided_without_it(service, http, "failed")
    [given_up] = [r for r in service.world.all(TaskRecord) if r.state == TaskState.FAILED]
    assert given_up.task.code == "unusable"


def test_an_outcome_without_the_scores_it_should_have_does_not_stop_the_study(
    service, http
) -> None:
    assert work_to_the_end(service, http, lambda _record: None) == [422] * MAX_ATTEMPTS
    require_decided_without_it(service, http, "failed")


def test_a_refused_outcome_is_refused_again_and_counts_once(service, http) -> None:
    record = service.world.lease()
    for _ in range(2):
        answer = hand_in(http, record, b"no scores")
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-input")
    [after] = [r for r in service.world.all(TaskRecord) if r.id == record.id]
    assert (after.state, after.task.tried) == (TaskState.QUEUED, ("w",))


def test_scores_that_were_not_uploaded_can_be_sent_after_all(service, http) -> None:
    record = service.world.lease()
    content = good(record)
    digest = str(Digest.of_bytes(content))
    body = {"fence": record.task.fence, "status": "ok", "scores": digest, "repeated": digest}
    path = f"/v1/leases/{record.id}/outcome"
    assert http.post(path, json=body).status_code == 404
    http.put(f"/v1/blobs/{digest}", content=content)
    assert http.post(path, json=body).status_code == 200


def test_a_merge_that_is_no_model_is_refused(service, http) -> None:
    while (record := service.world.lease()) is None or record.kind != "materialise":
        if record is not None:
            service.world.finish(record, service.world.work(record.task))
        service.queue_tasks()
    digest = str(Digest.of_bytes(b"no model"))
    http.put(f"/v1/blobs/{digest}", content=b"no model")
    file = {"name": "model.safetensors", "size": 8, "digest": digest}
    body = {"fence": record.task.fence, "status": "ok", "files": [file]}
    assert http.post(f"/v1/leases/{record.id}/outcome", json=body).status_code == 422


def test_scores_of_one_pass_where_two_were_asked_for_are_refused(service, http) -> None:
    """How noisy scores are is read off the second; without it the study would wait for ever."""
    record = service.world.lease()
    assert record.task.order.repeat
    content = good(record)
    digest = str(Digest.of_bytes(content))
    http.put(f"/v1/blobs/{digest}", content=content)
    body = {"fence": record.task.fence, "status": "ok", "scores": digest}
    assert http.post(f"/v1/leases/{record.id}/outcome", json=body).status_code == 422
