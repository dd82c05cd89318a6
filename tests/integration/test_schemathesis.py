"""The service does what its OpenAPI document says, as far as schemathesis can tell.

All operations, 50 generated requests each beside every example and every boundary of the document,
over a socket, against SQLite and a folder, with all of schemathesis' checks.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI, Response
from structlog.testing import capture_logs

from ckptmerge.domain.token import Scope
from ckptmerge.storage.records import ArtifactRecord, CheckpointRecord
from service.gate.auth import needs
from tests.integration.whole_service import TOKEN, judged_app, serving, whole_app
from tests.unit.workflow.conducted import World

pytest.importorskip("schemathesis")

ROOT = Path(__file__).parents[2]

CONFIGURATION = f"""
continue-on-failure = true
request-timeout = 20
hooks = "tests.integration.schemathesis_hooks"

[headers]
Authorization = "Bearer {TOKEN}"

[generation]
max-examples = 50
deterministic = true
no-shrink = true

[phases.stateful]
enabled = false  # the document has no links; workers and their leases have tests of their own

[warnings]
fail-on = ["unresolvable_reference", "unsupported_regex", "missing_deserializer", "missing_auth"]

# A request of the right form may still not suit what the service holds: 404 and 409, which
# schemathesis expects, and in the same way conditions (412) and ranges (416).
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "416"]

# Here no schema can say which requests are right: what is judged is the content of bytes, or of a
# blob that is named (scores, a model, documents, a side file's name), or how fields fit together
# and to checkpoints that are there (a budget for so many, weights for as many).
[[operations]]
include-operation-id = [
    "put_blob", "put_run_file", "put_held_out_set", "create_checkpoint", "put_checkpoint",
    "finish_lease",
    "open_study", "change_run", "get_posterior", "head_posterior",
]
checks.positive_data_acceptance.expected-statuses = [
    "2xx", "3xx", "401", "403", "404", "409", "412", "422",
]

# An upload is announced, and may be announced larger than is taken or than the disk is, or under
# the Idempotency-Key of another one.
[[operations]]
include-operation-id = ["create_upload"]
checks.positive_data_acceptance.expected-statuses = [
    "2xx", "401", "403", "413", "422", "429", "507",
]
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", "507"]
"""


def known_ids(world: World) -> str:
    """Write what is there into a configuration, so that half of all requests find something."""
    values = {
        "run": ["run"],
        "step": [record.step for record in world.all(CheckpointRecord)],
        "checkpoint": [record.id for record in world.all(CheckpointRecord)],
        "study": [record.id for record in world.studies()],
        "artifact": [record.id for record in world.all(ArtifactRecord)],
        "name": ["model.safetensors", "config.json"],
    }
    pools = "".join(f"{name}.values = {known}\n" for name, known in values.items())
    used = "".join(
        f'"path.{name}" = {{ dictionary = "{name}", probability = 0.5 }}\n' for name in values
    )
    return f"\n[dictionaries]\n{pools}\n[parameters]\n{used}"


def schemathesis(
    url: str, folder: Path, configuration: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Let schemathesis ask a service, and return what it found."""
    (folder / "schemathesis.toml").write_text(configuration)
    return subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file",
            folder / "schemathesis.toml", "--no-color", "run", f"{url}/openapi.json", *options,
        ],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with judged_app(tmp_path) as (world, app), capture_logs(), serving(app) as url:
        found = schemathesis(url, tmp_path, CONFIGURATION + known_ids(world))
    assert found.returncode == 0, found.stdout + found.stderr
    operations = sum(len(methods) for methods in app.openapi()["paths"].values())
    assert f"{operations} selected / {operations} total" in found.stdout


def lying(app: FastAPI) -> FastAPI:
    """Add an operation that answers what the document does not say."""
    app.add_api_route(
        "/v1/lies", lambda: Response(status_code=202), operation_id="lie",
        dependencies=[needs(Scope.READ)],
    )  # fmt: skip
    return app


def test_schemathesis_finds_an_answer_that_the_document_does_not_have(tmp_path: Path) -> None:
    with capture_logs(), serving(lying(whole_app(tmp_path))) as url:
        found = schemathesis(url, tmp_path, CONFIGURATION, "--include-path", "/v1/lies")
    assert found.returncode == 1
    assert "Undocumented status code" in found.stdout
