"""Every error has a status and a type, and every answer that is an error is a problem."""

import json
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ckptmerge import errors
from service.problems import ERRORS_SHOWN, KINDS, Problem, answer_with_problems, kind_of
from service.settings import ConfigurationError

TREE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.CkptmergeError)
]


class Part(BaseModel):
    size: int


class Whole(BaseModel):
    parts: list[Part]


def app_raising(error: Exception | None = None) -> FastAPI:
    app = FastAPI()
    answer_with_problems(app)

    @app.post("/raise")
    def raises() -> None:
        assert error is not None
        raise error

    @app.put("/take/{step}")
    def takes(step: int, whole: Whole) -> None:
        raise AssertionError(step, whole)

    return app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app_raising(), base_url="http://127.0.0.1") as client:
        yield client


def problem_of(error: Exception) -> Problem:
    client = TestClient(app_raising(error), raise_server_exceptions=False)
    answer = client.post("/raise")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = Problem.model_validate_json(answer.content)
    assert problem.status == answer.status_code
    return problem


def test_no_error_of_the_tree_is_missing_from_the_table() -> None:
    assert len(TREE) > 20
    assert set(KINDS) == set(TREE)


def test_a_type_stands_for_one_status_and_one_title() -> None:
    by_slug = {kind.slug: kind for kind in KINDS.values()}
    assert all(by_slug[kind.slug] == kind for kind in KINDS.values())
    assert all(kind.slug == kind.slug.lower() and " " not in kind.slug for kind in KINDS.values())


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (errors.MissingError, 404, "missing"),
        (errors.InvalidInputError, 422, "invalid-input"),
        (errors.CheckpointFormatError, 422, "checkpoint-format"),
        (errors.DigestMismatchError, 422, "digest-mismatch"),
        (errors.TooLargeError, 413, "too-large"),
        (errors.OutOfSpaceError, 507, "out-of-space"),
        (errors.DiskFailedError, 503, "disk-failed"),
        (errors.StepExistsError, 409, "step-exists"),
        (errors.NameTakenError, 409, "name-taken"),
        (errors.LeaseLostError, 409, "lease-lost"),
        (errors.OutcomeConflictError, 409, "outcome-conflict"),
        (errors.IncompatibleCheckpointsError, 409, "incompatible-checkpoint"),
        (errors.SourceRefusedError, 403, "source-refused"),
        (errors.RefusedError, 409, "refused"),
        (errors.IllegalTransitionError, 409, "illegal-transition"),
    ],
)
def test_clients_rely_on_these(error: type[errors.CkptmergeError], status: int, slug: str) -> None:
    problem = problem_of(error("step 5 is there; use another"))
    assert (problem.status, problem.type) == (status, f"/problems/{slug}")
    assert problem.detail == "step 5 is there; use another"


def test_an_error_from_elsewhere_is_of_its_parents_kind() -> None:
    assert kind_of(ConfigurationError("no")) == KINDS[errors.RefusedError]


@pytest.mark.parametrize("error", [ValueError("secret path"), errors.ProposerError("secret path")])
def test_a_failure_is_not_described_to_the_client(error: Exception) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.type) == (500, "/problems/unexpected")
    assert "secret" not in problem.model_dump_json()


def test_a_body_of_the_wrong_form_is_pointed_at(client: TestClient) -> None:
    answer = client.put("/take/x", json={"parts": [{"size": 1}, {"size": "NaN"}]})
    body = answer.json()
    assert (answer.status_code, body["type"]) == (422, "/problems/invalid-request")
    assert [part["pointer"] for part in body["errors"]] == ["/path/step", "/body/parts/1/size"]
    assert "/body/parts/1/size" in body["detail"]


def test_a_key_with_a_slash_is_escaped_in_its_pointer() -> None:
    app = FastAPI()
    answer_with_problems(app)

    @app.post("/counts")
    def counts(values: dict[str, int]) -> None:
        raise AssertionError(values)

    answer = TestClient(app).post("/counts", json={"a/b~c": "x"})
    assert answer.json()["errors"][0]["pointer"] == "/body/a~1b~0c"


def test_what_is_no_json_is_said_to_be_none(client: TestClient) -> None:
    answer = client.put("/take/1", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert [part["pointer"] for part in answer.json()["errors"]] == ["/body"]


def test_thousands_of_mistakes_make_a_short_answer(client: TestClient) -> None:
    answer = client.put("/take/1", json={"parts": [{}] * 5000})
    assert len(answer.json()["errors"]) == ERRORS_SHOWN
    assert "4997 more" in answer.json()["detail"]
    assert len(answer.content) < 10_000


def test_a_path_that_is_not_served_is_a_problem(client: TestClient) -> None:
    answer = client.get("/nowhere")
    assert answer.json()["type"] == "/problems/not-found"
    assert "/nowhere" in answer.json()["detail"]


def test_a_method_that_is_not_served_is_a_problem_that_names_the_others(client: TestClient) -> None:
    answer = client.get("/raise")
    assert answer.json()["type"] == "/problems/method-not-allowed"
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("status", [400, 411, 413, 415, 416, 428, 429, 503, 599])
def test_any_status_raised_is_a_problem(status: int) -> None:
    problem = problem_of(HTTPException(status, "because", {"Retry-After": "1"}))
    assert problem.status == status
    assert problem.detail == "because"


def test_a_status_that_is_no_refusal_stays_what_it_is() -> None:
    client = TestClient(app_raising(HTTPException(304, headers={"ETag": '"x"'})))
    answer = client.post("/raise")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"x"')


def test_errors_are_left_out_where_there_are_none() -> None:
    client = TestClient(app_raising(errors.MissingError("no run")))
    assert set(json.loads(client.post("/raise").content)) == {
        "type", "title", "status", "detail", "request_id",
    }  # fmt: skip
