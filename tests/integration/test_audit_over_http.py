"""The audit log over HTTP: every change by a person, with who, what and in which request."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import Response
from safetensors.numpy import save
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from ckptmerge.domain.token import Scope
from ckptmerge.storage.records import AuditRecord, CheckpointRecord
from ckptmerge.workflow.audit_log import broken_at
from service.operation.scrub import scrub
from tests.integration.access_world import AccessWorld, access_world

RAW = "application/octet-stream"

DOCUMENTS = "".join(
    json.dumps({"text": f"document {number}", "domain": "web"}) + "\n" for number in range(200)
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AccessWorld]:
    with capture_logs(), access_world(tmp_path) as made:
        yield made


def change(world: AccessWorld, method: str, path: str, **more: Any) -> Response:
    """Change something as the admin, in a request of a known id."""
    client = TestClient(world.app, base_url="http://127.0.0.1:8117")
    headers = {"authorization": f"Bearer {world.tokens[Scope.ADMIN]}", "x-request-id": "r-1"}
    headers |= more.pop("headers", {})
    answer = client.request(method, f"/v1/{path}", headers=headers, **more)
    assert answer.is_success, answer.text
    return answer


def log(world: AccessWorld) -> list[dict[str, Any]]:
    return change(world, "GET", "audit?limit=1000").json()["items"]


def new_entries(world: AccessWorld, method: str, path: str, **more: Any) -> list[dict[str, Any]]:
    before = len(log(world))
    change(world, method, path, **more)
    return log(world)[before:]


def admin_id(world: AccessWorld) -> str:
    return "k_" + world.tokens[Scope.ADMIN].split("_")[1]


def changes(world: AccessWorld) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return what an admin may change: the action on record, and the request that does it."""
    newest = world.world.all(CheckpointRecord)[-1].id
    pin = {"checkpoint": newest, "reason": "it loads faster"}
    return [
        ("put-held-out-set", "PUT", "held-out-sets/web", {"content": DOCUMENTS}),
        ("create-run", "POST", "runs", {"json": {"name": "b", "held_out": "web"}}),
        ("change-run", "PATCH", "runs/run", {"json": {"window": {"size": 3, "every": 9}}}),
        ("put-run-file", "PUT", "runs/run/files/generation_config.json", {"content": "{}"}),
        ("pin-best", "POST", "runs/run/best", {"json": pin}),
        ("unpin-best", "DELETE", "runs/run/best", {}),
        ("pin-checkpoint", "PUT", "runs/run/checkpoints/100/pin", {}),
        ("unpin-checkpoint", "DELETE", "runs/run/checkpoints/100/pin", {}),
        ("create-token", "POST", "tokens", {"json": {"name": "x", "scopes": ["read"]}}),
    ]


def test_every_change_is_on_record_with_who_and_in_which_request(world: AccessWorld) -> None:
    for action, method, path, more in changes(world):
        [entry] = new_entries(world, method, path, **more)
        assert entry["action"] == action
        assert (entry["who"], entry["request"]) == (admin_id(world), "r-1")
        assert entry["object"].startswith(path.removesuffix("/pin")), path
    with world.world.store.read() as snapshot:
        assert broken_at(snapshot) is None


def test_what_changes_nothing_is_not_on_record(world: AccessWorld) -> None:
    for action, method, path, more in changes(world):
        change(world, method, path, **more)
        if action != "create-token":  # which is refused
            assert new_entries(world, method, path, **more) == [], action


def test_a_study_opened_and_ended_by_hand_is_on_record(world: AccessWorld) -> None:
    wanted = {"run": "run", "window": 2, "study": {"seed": 5}}
    key = {"idempotency-key": "once"}
    [opened] = new_entries(world, "POST", "studies", json=wanted, headers=key)
    assert new_entries(world, "POST", "studies", json=wanted, headers=key) == []
    [ended] = new_entries(world, "PATCH", opened["object"], json={"state": "cancelled"})
    assert (opened["action"], ended["action"]) == ("open-study", "cancel-study")
    assert opened["detail"]["run"] == ended["detail"]["run"] == "run"


def test_what_retention_has_removed_by_hand_is_on_record(world: AccessWorld) -> None:
    assert new_entries(world, "POST", "runs/run/retention") == [], "nothing went"
    for step in range(300, 900, 100):
        world.world.arrive(step)
    rule = {"retention": {"keep_last": 1}, "window": {"size": 2}}
    change(world, "PATCH", "runs/run", json=rule)
    for study in world.world.studies():
        if study.state in {"searching", "frozen"}:
            change(world, "PATCH", f"studies/{study.id}", json={"state": "cancelled"})
    entries = new_entries(world, "POST", "runs/run/retention")
    assert [entry["action"] for entry in entries] == ["apply-retention"]
    assert entries[0]["detail"]["removed"]


def test_a_checkpoint_that_takes_anothers_place_is_on_record(world: AccessWorld) -> None:
    [before] = [c for c in world.world.all(CheckpointRecord) if c.step == 200]
    other = save({"w": np.full(8, 7, np.float32)})
    path, more = "runs/run/checkpoints/200", {"headers": {"content-type": RAW}, "content": other}
    [entry] = new_entries(world, "PUT", f"{path}?supersede=true", **more)
    after = change(world, "GET", path).json()["id"]
    assert (entry["action"], entry["object"]) == ("supersede-checkpoint", path)
    assert entry["detail"] == {"before": before.id, "after": after}
    assert new_entries(world, "PUT", path, **more) == [], "the same again changes nothing"


def test_a_token_that_is_revoked_is_on_record_once(world: AccessWorld) -> None:
    made = change(world, "POST", "tokens", json={"name": "x", "scopes": ["read"]}).json()
    [entry] = new_entries(world, "DELETE", f"tokens/{made['id']}")
    assert (entry["action"], entry["object"]) == ("revoke-token", f"tokens/{made['id']}")
    assert new_entries(world, "DELETE", f"tokens/{made['id']}") == []


def test_a_change_that_fails_leaves_no_entry(world: AccessWorld) -> None:
    before = len(log(world))
    token = world.tokens[Scope.ADMIN]
    headers = {"content-type": "application/json"}
    for path in ("/v1/runs/none/best", "/v1/runs/run/best"):
        assert world.ask("POST", path, token, headers=headers, size=10).status >= 400
    assert len(log(world)) == before


def test_the_log_comes_page_by_page(world: AccessWorld) -> None:
    everything = [entry["number"] for entry in log(world)]
    first = change(world, "GET", "audit?limit=3").json()
    rest = change(world, "GET", f"audit?after={first['next']}&limit=1000").json()
    assert [entry["number"] for entry in first["items"] + rest["items"]] == everything
    assert everything == list(range(1, len(everything) + 1))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET body = replace(body, 'settings', 'somebody') WHERE key = '3'",
        "DELETE FROM audit WHERE key = '3'",
    ],
)
def test_a_row_that_somebody_has_changed_in_the_database_is_found(
    world: AccessWorld, statement: str
) -> None:
    with world.world.store.read() as snapshot:
        assert snapshot.count(AuditRecord) > 4
        assert broken_at(snapshot) is None
    with sqlite3.connect(world.folder / "ckptmerge.sqlite") as raw:
        assert raw.execute(statement).rowcount == 1
    raw.close()
    found = scrub(world.folder)
    assert (found.audit_broken_at, found.wrong, found.clean) == (3, (), False)
