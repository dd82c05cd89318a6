"""The OpenAPI document is complete: every operation says what it takes, answers and refuses."""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

import ckptmerge.wire
from ckptmerge.wire.resource import Resource
from ckptmerge.wire.runs import NewRun
from service.interface import operations_of
from service.problems import (
    INSUFFICIENT_SCOPE,
    KINDS,
    MEDIA_TYPE,
    NOT_READY,
    OVERLOADED,
    UNEXPECTED,
    VALIDATION,
    kind_of_status,
)
from tests.integration.whole_service import TOKEN, whole_app

JSON = "application/json"
FURTHER = (NOT_READY, OVERLOADED, UNEXPECTED, VALIDATION, INSUFFICIENT_SCOPE)
NAMED = {kind.slug: kind for kind in (*KINDS.values(), *FURTHER)}
OPEN_PATHS = {"/healthz", "/readyz"}
MAKING = {"put_blob", "put_held_out_set"}
"""Operations on one thing that need not be there before."""


@pytest.fixture
def client(tmp_path) -> TestClient:
    headers = {"authorization": f"Bearer {TOKEN}"}
    return TestClient(whole_app(tmp_path), "http://127.0.0.1:8117", headers=headers)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return whole_app(tmp_path_factory.mktemp("data")).openapi()


def answers(api: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for _, _, operation in operations_of(api):
        for status, answer in operation["responses"].items():
            yield operation["operationId"], int(status), answer


def refusals(api: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    return ((name, status, answer) for name, status, answer in answers(api) if status >= 400)


def examples(media: dict[str, Any]) -> list[Any]:
    single = [media["example"]] if "example" in media else []
    return single + [example["value"] for example in media.get("examples", {}).values()]


def statuses(operation: dict[str, Any]) -> set[int]:
    return {int(status) for status in operation["responses"]}


def takes_bytes(operation: dict[str, Any]) -> bool:
    content = operation.get("requestBody", {}).get("content", {})
    return bool(content.keys() - {JSON})


def resources() -> list[type[Resource]]:
    for module in pkgutil.iter_modules(ckptmerge.wire.__path__, "ckptmerge.wire."):
        importlib.import_module(module.name)
    found, new = set[type[Resource]](), {Resource}
    while new:
        found |= new
        new = {kind for parent in new for kind in parent.__subclasses__()} - found
    return sorted(found, key=lambda kind: kind.__qualname__)


def test_every_operation_has_a_name_of_its_own_a_summary_a_description_and_a_tag(api) -> None:
    names = [operation["operationId"] for _, _, operation in operations_of(api)]
    assert len(names) == len(set(names)) > 30
    for path, method, operation in operations_of(api):
        assert operation["summary"], (method, path)
        assert operation["tags"], (method, path)
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", operation["operationId"]), (method, path)


def test_every_json_body_and_answer_has_an_example(api) -> None:
    without = []
    for path, method, operation in operations_of(api):
        holders = [operation.get("requestBody", {}), *operation["responses"].values()]
        contents = [holder.get("content", {}).get(JSON) for holder in holders]
        if any(media is not None and not examples(media) for media in contents):
            without.append(f"{method} {path}")
    assert without == []


def test_every_example_has_the_form_that_the_document_says(api) -> None:
    checked = 0
    for _, _, operation in operations_of(api):
        for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
            for media in holder.get("content", {}).values():
                schema = {**media.get("schema", {}), "components": api["components"]}
                for example in examples(media):
                    jsonschema_rs.validate(schema, example)
                    checked += 1
    assert checked > 200


@pytest.mark.parametrize("resource", resources(), ids=lambda kind: kind.__name__)
def test_every_resources_example_is_one(resource: type[Resource]) -> None:
    extra = resource.model_config.get("json_schema_extra") or {}
    assert isinstance(extra, dict)
    for example in extra.get("examples", ()):
        resource.model_validate_json(json.dumps(example))
        resource.model_validate(example)


def test_every_refusal_is_a_problem_with_a_worked_example_of_its_kind(api) -> None:
    for name, status, answer in refusals(api):
        assert list(answer["content"]) == [MEDIA_TYPE], (name, status)
        media = answer["content"][MEDIA_TYPE]
        assert media["schema"] == {"$ref": "#/components/schemas/Problem"}
        assert examples(media), (name, status)
        for problem in examples(media):
            slug = problem["type"].removeprefix("/problems/")
            kind = NAMED.get(slug) or kind_of_status(status)
            assert (problem["status"], kind.slug, kind.title) == (status, slug, problem["title"])
            assert problem["detail"] not in {kind.title, answer["description"]}, (name, status)
            assert problem["request_id"]


def test_a_conflict_says_of_which_kind_it_is(api) -> None:
    bare = kind_of_status(409).slug
    kinds = {
        (name, slug)
        for name, status, answer in refusals(api)
        if status == 409
        for slug in answer["content"][MEDIA_TYPE]["examples"]
    }
    assert len(kinds) > 5
    assert bare not in {slug for _, slug in kinds}


def test_an_operation_says_what_is_refused_before_any_route_is_reached(api) -> None:
    assert api["security"] == [{"token": []}]
    for path, method, operation in operations_of(api):
        expected = {421, 500}
        if path in OPEN_PATHS:
            assert operation["security"] == []
        else:
            expected |= {401}
        if path not in OPEN_PATHS:
            expected |= {503}
        if method not in {"get", "head"}:
            expected |= {403, 507}
        if "requestBody" in operation:
            expected |= {408, 413}
        assert expected <= statuses(operation), (method, path)
        assert (401 in statuses(operation)) == (path not in OPEN_PATHS), (method, path)


def test_an_operation_says_what_its_parameters_and_body_may_be_refused_for(api) -> None:
    for path, method, operation in operations_of(api):
        said = statuses(operation)
        if operation.get("parameters") or "requestBody" in operation:
            assert 422 in said, (method, path)
        if "{" in path and operation["operationId"] not in MAKING:
            assert 404 in said, (method, path)
        if takes_bytes(operation):
            assert {411, 507} <= said, (method, path)


def test_downloads_say_how_ranges_and_conditions_are_answered(api) -> None:
    downloads = [
        (method, operation)
        for path, method, operation in operations_of(api)
        if path.endswith(("files/{name}", "{hexadecimal}"))
        and method in {"get", "head"}
        and 307 not in statuses(operation)
    ]
    assert len(downloads) >= 6
    for method, operation in downloads:
        assert {304, 412} <= statuses(operation)
        assert (method == "get") == ({206, 416} <= statuses(operation))
        assert (method == "get") == ("content" in operation["responses"]["200"])


def test_no_operation_answers_with_a_form_that_is_not_said(api) -> None:
    for name, status, answer in answers(api):
        assert status >= 300 or "default" not in answer, name
        for media in answer.get("content", {}).values():
            assert media.get("schema") is not None, (name, status)


def test_every_reference_leads_to_a_schema(api) -> None:
    named = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(api)))
    assert named
    assert named <= {f"#/components/schemas/{name}" for name in api["components"]["schemas"]}
    assert '"$defs"' not in json.dumps(api["paths"])


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/runs", "GET, POST"),
        ("/v1/studies/s_1", "GET, PATCH"),
        ("/v1/leases/t_1/outcome", "POST"),
    ],
)
def test_a_path_says_every_method_that_it_takes(client, path: str, methods: str) -> None:
    answer = client.options(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == methods


@pytest.mark.parametrize("wait", [False, "0", None, [0]])
def test_what_is_no_number_is_not_read_as_one(client, wait: object) -> None:
    answer = client.post("/v1/leases", json={"worker": "w", "wait": wait})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/body/wait")


def test_a_whole_number_may_be_written_with_a_point() -> None:
    window = NewRun.model_validate_json('{"name": "a", "window": {"size": 4.0}}').window
    assert window is not None
    assert (window.size, type(window.size)) == (4, int)
    with pytest.raises(ValidationError, match="valid integer"):
        NewRun.model_validate_json('{"name": "a", "window": {"size": 4.5}}')


def test_a_truth_value_within_a_study_is_refused(client) -> None:
    study = {"objective": {"limits": {"web": False}}}
    answer = client.post("/v1/runs", json={"name": "a", "study": study})
    assert answer.json()["errors"][0]["pointer"] == "/body/study/objective/limits/web"


def test_the_documents_of_the_example_make_a_held_out_set(client, api) -> None:
    body = api["paths"]["/v1/held-out-sets/{name}"]["put"]["requestBody"]
    [content] = examples(body["content"]["application/x-ndjson"])
    assert client.put("/v1/held-out-sets/a", content=content).status_code == 201


def test_documents_that_are_refused_take_no_name(client) -> None:
    few = '{"text": "one"}\n{"text": "two"}\n'
    assert client.put("/v1/held-out-sets/a", content=few).status_code == 422
    assert client.get("/v1/held-out-sets/a").status_code == 404


@pytest.mark.parametrize("step", [-1, 2**53 + 1, 10**30])
def test_a_step_that_no_store_can_hold_is_refused(client, step: int) -> None:
    assert client.get(f"/v1/runs/a/checkpoints/{step}").status_code == 422
