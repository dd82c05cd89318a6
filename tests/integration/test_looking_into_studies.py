"""What can be asked about a study and its merges, and studies opened by hand, over HTTP."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from ckptmerge.proposal.belief import Posterior, PosteriorRequest
from ckptmerge.storage.records import ArtifactRecord, CheckpointRecord, StudyRecord
from tests.integration.conducted_service import ConductedService, conducted_service

STUDIES = "/v1/studies"


class Believer:
    """Computes posteriors in this process, and counts them."""

    def __init__(self) -> None:
        from ckptmerge.proposal.posterior import posterior

        self._posterior = posterior
        self.asked: list[PosteriorRequest] = []

    def __call__(self, request: PosteriorRequest) -> Posterior:
        self.asked.append(request)
        return self._posterior(request)


@pytest.fixture(scope="module")
def believer() -> Believer:
    return Believer()


@pytest.fixture(scope="module")
def service(tmp_path_factory, believer) -> Iterator[ConductedService]:
    """A run of two checkpoints that has promoted a merge of them."""
    with conducted_service(tmp_path_factory.mktemp("service"), believe=believer) as running:
        running.world.arrive(100)
        running.world.arrive(200)
        running.world.conclude()
        yield running


@pytest.fixture(scope="module")
def http(service) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=service.url, timeout=60) as opened:
        yield opened


@pytest.fixture
def study(service) -> StudyRecord:
    return service.world.studies()[0]


@pytest.fixture
def merge(service) -> ArtifactRecord:
    return next(a for a in service.world.all(ArtifactRecord) if a.promoted)


def problem(answer: httpx2.Response) -> tuple[int, str]:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, body["type"].removeprefix("/problems/")


# --------------------------------------------------------------------------- posteriors


def test_a_posterior_is_of_the_trials_that_were_observed(http, study) -> None:
    trials = http.get(f"{STUDIES}/{study.id}/trials").json()["items"]
    answer = http.get(f"{STUDIES}/{study.id}/posterior").json()
    assert answer["observations"] == len(trials)
    assert [t["trial"] for t in answer["trials"]] == [t["trial"] for t in trials]
    for believed, trial in zip(answer["trials"], trials, strict=True):
        assert believed["weights"] == trial["weights"]
        assert believed["value"] == trial["value"]
        assert believed["mean"] == pytest.approx(trial["value"], abs=1e-3)
        assert believed["name"] == trial["name"]
    assert answer["incumbent"] == study.winner
    assert (answer["unit"], answer["split"]) == ("bits_per_byte", "search")
    assert len(answer["line"]["points"]) == 51
    assert answer["floor"] > 0
    assert answer["candidates"] == []


def test_candidates_are_predicted_in_the_order_in_which_they_are_asked_for(http, study) -> None:
    asked = {"weights": ["0.4,0.6", "1,0"]}
    answer = http.get(f"{STUDIES}/{study.id}/posterior", params=asked).json()
    assert [c["weights"] for c in answer["candidates"]] == [[0.4, 0.6], [1.0, 0.0]]
    assert answer["candidates"][0]["gain"] > answer["candidates"][1]["gain"]


def test_a_posterior_is_computed_once_while_nothing_is_observed(http, study, believer) -> None:
    first = http.get(f"{STUDIES}/{study.id}/posterior").json()
    before = len(believer.asked)
    assert http.get(f"{STUDIES}/{study.id}/posterior").json() == first
    assert len(believer.asked) == before
    http.get(f"{STUDIES}/{study.id}/posterior", params={"weights": "0.31,0.69"})
    assert len(believer.asked) == before + 1


def test_of_several_who_ask_the_same_at_once_one_makes_the_proposer_compute(
    http, study, believer
) -> None:
    before = len(believer.asked)
    asked = {"weights": "0.33,0.67"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda _: http.get(f"{STUDIES}/{study.id}/posterior", params=asked), range(4))
        )
    assert len({answer.text for answer in answers}) == 1
    assert len(believer.asked) == before + 1


def test_nothing_that_is_out_or_random_decides_what_is_believed(http, study, believer) -> None:
    http.get(f"{STUDIES}/{study.id}/posterior", params={"weights": "0.32,0.68"})
    asked = believer.asked[-1].study
    assert asked.pending == ()
    assert asked.index == len(asked.observations)


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        (["0.4,0.7"], "invalid-weights"),
        (["0.4"], "invalid-weights"),
        (["a,b"], "invalid-weights"),
        (["nan,1"], "invalid-weights"),
        ([""], "invalid-weights"),
        (["0.2,0.3,0.5"], "invalid-input"),
        (["-7,8"], "invalid-input"),
        (["0.5,0.5"] * 17, "invalid-request"),
    ],
)
def test_what_is_no_candidate_of_the_study_is_refused(http, study, weights, kind) -> None:
    answer = http.get(f"{STUDIES}/{study.id}/posterior", params={"weights": weights})
    assert problem(answer) == (422, kind)


def test_there_is_no_posterior_of_nothing(http) -> None:
    assert problem(http.get(f"{STUDIES}/s_1/posterior")) == (404, "missing")


# --------------------------------------------------------------------------- certificates


def test_a_certificate_shows_every_test(http, study, merge) -> None:
    answer = http.get(f"{STUDIES}/{study.id}/certificate").json()
    assert (answer["promoted"], answer["artifact"]) == (True, merge.id)
    assert [test["passed"] for test in answer["tests"]] == [True]
    assert answer["tests"][0]["artifact"] == str(merge.manifest.digest)


# --------------------------------------------------------------------------- artifacts, lineage


def test_a_merge_is_described(http, study, merge) -> None:
    answer = http.get(f"/v1/artifacts/{merge.id}").json()
    assert (answer["run"], answer["study"]) == ("run", study.id)
    assert (answer["promoted"], answer["best"]) == (True, True)
    assert answer["digest"] == str(merge.manifest.digest)
    assert [w["weight"] for w in answer["weights"]] == list(merge.weights.values)
    assert answer["recipe"] == http.get(f"/v1/artifacts/{merge.id}/recipe").json()
    assert http.get(answer["files"][0]["href"]).status_code == 200


def test_lineage_is_of_the_run_and_of_the_merge(http, merge) -> None:
    of_run = http.get("/v1/runs/run/lineage").json()
    assert of_run == http.get(f"/v1/artifacts/{merge.id}/lineage").json()
    assert [node["kind"] for node in of_run["nodes"]] == ["checkpoint", "checkpoint", "merge"]
    assert {edge["target"] for edge in of_run["edges"]} == {merge.id}


@pytest.mark.parametrize("path", ["/v1/artifacts/a_1", "/v1/artifacts/a_1/lineage"])
def test_there_is_no_description_of_what_was_not_promoted(http, path) -> None:
    assert problem(http.get(path)) == (404, "missing")
    assert problem(http.get("/v1/runs/other/lineage")) == (404, "missing")


def test_everything_can_be_asked_for_by_its_head(http, study, merge) -> None:
    for path in (
        f"{STUDIES}/{study.id}/posterior",
        f"{STUDIES}/{study.id}/certificate",
        f"/v1/artifacts/{merge.id}",
        f"/v1/artifacts/{merge.id}/lineage",
        "/v1/runs/run/lineage",
    ):
        head = http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert http.head(path.replace(study.id, "s_1").replace(merge.id, "a_1").replace(
            "/run/", "/other/")).status_code == 404  # fmt: skip


# --------------------------------------------------------------------------- opened by hand


@pytest.fixture
def opened(service, http) -> Iterator[dict]:
    """A study opened by hand with a key, ended at the end."""
    answer = http.post(STUDIES, json=NEW, headers=KEY)
    yield answer.json() | {"status": answer.status_code, "at": answer.headers["location"]}
    service.world.conclude()


NEW = {"run": "run", "steps": [100, 200], "study": {"seed": 5}}
KEY = {"Idempotency-Key": "once"}


def test_a_study_is_opened_once_for_a_key(http, opened) -> None:
    assert opened["status"] == 201
    assert opened["at"] == f"{STUDIES}/{opened['id']}"
    assert (opened["steps"], opened["seed"], opened["state"]) == ([100, 200], 5, "searching")
    again = http.post(STUDIES, json=NEW, headers=KEY)
    assert (again.status_code, again.json()["id"]) == (200, opened["id"])
    other = http.post(STUDIES, json={**NEW, "steps": [200, 100]}, headers=KEY)
    assert problem(other) == (422, "invalid-input")


def test_a_study_that_goes_on_has_no_certificate_and_at_first_no_posterior(http, service) -> None:
    before = len(service.world.studies())
    opened = http.post(STUDIES, json={**NEW, "study": {"seed": 6}}).json()
    assert len(service.world.studies()) == before + 1
    assert problem(http.post(STUDIES, json=NEW)) == (409, "refused")
    for name, status in (("certificate", 404), ("posterior", 409)):
        answer = http.get(f"{STUDIES}/{opened['id']}/{name}")
        assert answer.status_code == status
    assert "ask again" in answer.json()["detail"]
    assert http.patch(f"{STUDIES}/{opened['id']}", json={"state": "cancelled"}).status_code == 200
    ended = http.get(f"{STUDIES}/{opened['id']}/certificate")
    assert problem(ended) == (404, "missing")
    assert "cancelled by hand" in ended.json()["detail"]


def test_a_study_that_promotes_nothing_shows_its_tests_too(http, service) -> None:
    http.post(STUDIES, json={**NEW, "study": {"seed": 7}})
    ended = service.world.conclude()
    answer = http.get(f"{STUDIES}/{ended.id}/certificate")
    assert answer.status_code == 200
    assert (answer.json()["promoted"], answer.json()["artifact"]) == (False, None)
    assert answer.json()["reason"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"run": "run", "steps": [200]}, 422),
        ({"run": "run", "steps": [200, 100]}, 422),
        ({"run": "run", "steps": [100, 150]}, 404),
        ({"run": "run", "window": 1}, 422),
        ({"run": "run", "window": 9}, 422),
        ({"run": "run"}, 422),
        ({"run": "run", "window": 2, "steps": [100, 200]}, 422),
        ({"run": "run", "window": 2, "study": {"budget": 1}}, 422),
        ({"run": "run", "window": 2, "study": {"budgets": 9}}, 422),
        ({"run": "other", "window": 2}, 404),
    ],
)
def test_what_is_no_window_is_refused(http, service, body, status) -> None:
    before = len(service.world.studies())
    assert problem(http.post(STUDIES, json=body))[0] == status
    assert len(service.world.studies()) == before


def test_every_operation_is_described(http, service) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    operations = {
        "/v1/studies": {"post": {"200", "201", "404", "409", "422"}},
        "/v1/studies/{study}/posterior": {"get": {"200", "404", "409", "422"}},
        "/v1/studies/{study}/certificate": {"get": {"200", "404"}},
        "/v1/artifacts/{artifact}": {"get": {"200", "404"}},
        "/v1/artifacts/{artifact}/lineage": {"get": {"200", "404"}},
        "/v1/runs/{run}/lineage": {"get": {"200", "404"}},
    }
    for path, methods in operations.items():
        for method, answers in methods.items():
            assert answers <= set(paths[path][method]["responses"])
            assert paths[path][method]["description"]
    assert len(service.world.all(CheckpointRecord)) == 2
