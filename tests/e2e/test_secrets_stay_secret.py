"""No secret of a real service is found where others could read it: log, disk, command lines."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ckptmerge.client.client import Client
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.token import Scope
from ckptmerge.errors import ServiceError
from tests.e2e.processes import processes_of
from tests.e2e.running import RunningService, wait_for

TOKEN = "a-token-that-a-person-has-chosen"  # noqa: S105 - of this test

DOCUMENTS = "".join(
    json.dumps({"text": f"document {number}", "domain": "web"}) + "\n" for number in range(200)
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "held-out.jsonl").write_text(DOCUMENTS)
    (folder / "watched").mkdir()
    running = RunningService(
        folder, folder / "held-out.jsonl", watch=folder / "watched",
        environ={"CKPTMERGE_TOKEN": TOKEN},
    )  # fmt: skip
    with running:
        yield running


def family(service: RunningService) -> list[int]:
    """Return the service's process and all that it has started."""
    assert service._process is not None
    return processes_of(os.getpgid(service._process.pid), "")


def worker_of(service: RunningService) -> int:
    wait_for(lambda: service.processes("worker --url"), 60, service.log)
    return service.processes("worker --url")[0]


def environment_of(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def everything_on_disk(service: RunningService) -> bytes:
    files = (path for path in service.folder.rglob("*") if path.is_file())
    return b"".join(path.read_bytes() for path in files)


def asked(service: RunningService, path: str, token: str, **more: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx2.get(f"{service.url}{path}", headers=headers, **more)


def test_the_services_own_worker_has_a_token_for_its_work_alone(service: RunningService) -> None:
    lent = environment_of(worker_of(service))["CKPTMERGE_TOKEN"]
    assert lent != TOKEN
    assert asked(service, "/v1/runs", lent).status_code == 200
    for path in ("/v1/tokens", "/v1/audit"):
        assert asked(service, path, lent).status_code == 403
    with Client(service.url, lent) as client, pytest.raises(ServiceError, match="scope") as refused:
        client.create_token("more", scopes=[Scope.ADMIN])
    assert refused.value.kind == "insufficient-scope"


def test_no_child_of_the_service_is_given_the_token_of_its_settings(
    service: RunningService,
) -> None:
    worker_of(service)
    service_itself = service._process.pid if service._process else 0
    children = [process for process in family(service) if process != service_itself]
    assert len(children) >= 2, "a worker and the proposer"
    for child in children:
        assert TOKEN not in environment_of(child).values(), child


def test_secrets_are_on_no_command_line_and_in_no_file_log_or_answer(
    service: RunningService,
) -> None:
    with Client(service.url, TOKEN) as client:
        made = client.create_token("job", scopes=[Scope.CHECKPOINT_WRITE])
        ended = client.create_token("ended", scopes=[Scope.ADMIN])
        client.revoke_token(ended.id)
    lent = environment_of(worker_of(service))["CKPTMERGE_TOKEN"]
    secrets = [made.token, ended.token, lent, TOKEN]
    paths = ("/v1/runs", "/v1/tokens", "/v1/audit", "/metrics")
    answers = [
        asked(service, f"{path}?token={token}", token, timeout=30).text
        for token in (*secrets, "wrong-" + made.token, made.token[:-1], "Basic " + TOKEN)
        for path in paths
    ]
    for token in (made.token, lent):
        asked(service, f"/v1/runs/{token}", TOKEN)  # pasted into the wrong place
    answers.append(asked(service, "/metrics", TOKEN).text)
    lines = [Path(f"/proc/{p}/cmdline").read_bytes().decode() for p in family(service)]
    wait_for(lambda: "/v1/audit" in service.log(), 10)
    found = {
        "a command line": "".join(lines).encode(),
        "the log": service.log().encode(),
        "an answer": "".join(answers).encode(),
        "the disk": everything_on_disk(service),
    }
    for place, content in found.items():
        for secret in secrets:
            assert secret.rpartition("_")[2].encode() not in content, f"a secret is in {place}"
    for place in ("the log", "an answer", "a command line"):
        for secret in (made.token, TOKEN):
            assert Digest.of_bytes(secret.encode()).hex.encode() not in found[place], place
    digest = Digest.of_bytes(made.token.encode()).hex.encode()
    assert digest in found["the disk"], "by which it is known: this looks where it should"
    assert b"[redacted]" in found["the log"]


def test_the_database_is_for_its_owner_alone(service: RunningService) -> None:
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (service.folder / "data").glob("ckptmerge.sqlite*")
    }
    assert modes
    assert not [name for name, mode in modes.items() if mode & 0o077], modes
