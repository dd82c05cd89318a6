"""The service, with real processes, over real HTTP, on a really trained run."""

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ckptmerge.client.client import Client
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import ServiceError
from ckptmerge.formats.manifest import read_manifest
from tests.e2e.running import COMMAND, RunningService, decided, wait_for
from tests.e2e.searched import STEPS, assert_same, run_of, search, search_alone


@pytest.fixture(scope="module")
def served(trained_run, tmp_path_factory):
    """A service that has decided one study, left running."""
    with RunningService(tmp_path_factory.mktemp("served"), trained_run.held_out) as service:
        with Client(service.url) as client:
            search(client, trained_run.checkpoints[-STEPS:])
            wait_for(lambda: decided(client, "run"), 180, service.log)
        yield service


@pytest.fixture
def client(served):
    with Client(served.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(trained_run, tmp_path_factory):
    """The same study in one process."""
    looks = tmp_path_factory.mktemp("looks") / "looks.jsonl"
    return search_alone(trained_run.checkpoints[-STEPS:], trained_run.held_out, looks)


def test_it_comes_to_what_one_process_comes_to(client, undisturbed) -> None:
    best = client.best("run").answer
    local = undisturbed.best()
    assert best.promoted
    assert [w.weight for w in best.weights or ()] == [w.weight for w in local.weights or ()]
    assert best.certificate is not None
    assert local.certificate is not None
    assert best.certificate.p == local.certificate.p
    assert best.gains == local.gains
    assert best.passes == local.passes


def test_the_champion_is_downloaded_verified_and_loads(client, undisturbed, tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    best = client.best("run")
    folder = best.download(tmp_path / "champion")
    assert str(read_manifest(folder).digest) == best.answer.digest
    merged = load_file(folder / "model.safetensors")
    ours = load_file(undisturbed.publish(tmp_path / "local") / "model.safetensors")
    assert all((merged[name] == ours[name]).all() for name in ours)
    AutoModelForCausalLM.from_pretrained(folder)


def test_posting_the_same_again_changes_nothing(client, trained_run) -> None:
    before = [study.id for study in client.studies("run")]
    known = client.push(trained_run.checkpoints[-1], run="run")
    assert known.step == 300
    assert [study.id for study in client.studies("run")] == before


def test_other_bytes_at_a_known_step_are_refused(client, trained_run) -> None:
    with pytest.raises(ServiceError, match="attempt=next") as refused:
        client.push(trained_run.checkpoints[0], run="run", step=300)
    assert (refused.value.status, refused.value.kind) == (409, "step-exists")


def test_a_checkpoint_of_another_model_is_refused(client, tmp_path, trained_run) -> None:
    from safetensors.torch import save_file

    folder = tmp_path / "step-400"
    folder.mkdir()
    tensors = load_file(trained_run.checkpoints[0] / "model.safetensors")
    tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ServiceError, match=r"model\.norm\.weight") as refused:
        client.push(folder, run="run")
    assert refused.value.kind == "incompatible-checkpoint"


def test_nan_is_refused(client, tmp_path, trained_run) -> None:
    from safetensors.torch import save_file

    folder = tmp_path / "step-400"
    folder.mkdir()
    tensors = load_file(trained_run.checkpoints[0] / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ServiceError, match="NaN"):
        client.push(folder, run="run")


def test_damaged_bytes_are_refused_and_not_kept(client) -> None:
    digest = Digest.of_bytes(b"right")
    with pytest.raises(ServiceError, match="damaged") as refused:
        client._session.put(f"/v1/blobs/{digest}", lambda: [b"wrong"], size=5)
    assert refused.value.status == 422
    assert not client._session.exists(f"/v1/blobs/{digest}")


def test_a_checkpoint_without_a_configuration_waits_and_breaks_no_study(
    client, trained_run
) -> None:
    raw = (trained_run.checkpoints[-1] / "model.safetensors").read_bytes()
    client._session.json("POST", "/v1/runs", {**run_of(), "name": "bare"})
    digest = Digest.of_bytes(raw)
    if not client._session.exists(f"/v1/blobs/{digest}"):
        client._session.put(f"/v1/blobs/{digest}", lambda: [raw], size=len(raw))
    files = [{"name": "model.safetensors", "size": len(raw), "digest": str(digest)}]
    known = client._session.json("POST", "/v1/runs/bare/checkpoints", {"step": 5, "files": files})
    assert (known["state"], known["missing"]) == ("incomplete", ["config.json", "tokenizer"])
    with pytest.raises(ServiceError, match="no complete checkpoint"):
        client.best("bare")


def test_raw_bytes_of_one_file_take_the_rest_from_the_run(client, trained_run) -> None:
    """One curl from a training script; the body is streamed and never held in memory."""
    checkpoint, http = trained_run.checkpoints[-2], client._session._client
    client._session.json("POST", "/v1/runs", {**run_of(), "name": "raw"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        content = (checkpoint / name).read_bytes()
        assert http.put(f"/v1/runs/raw/files/{name}", content=content).status_code == 200
    raw = (checkpoint / "model.safetensors").read_bytes()
    known = http.post(
        "/v1/runs/raw/checkpoints?step=270&tokens=5",
        content=raw,
        headers={"Content-Type": "application/octet-stream"},
    )
    assert known.status_code == 201
    assert (known.json()["state"], known.json()["tokens"]) == ("complete", 5)
    best = client.best("raw").answer
    assert (best.step, best.promoted) == (270, False)
    assert http.head(best.files[0].href).status_code == 200


def test_a_source_is_read_only_where_that_is_allowed(client, trained_run) -> None:
    body = {"step": 7, "source": str(trained_run.checkpoints[0])}
    with pytest.raises(ServiceError, match="--source-root") as refused:
        client._session.json("POST", "/v1/runs/run/checkpoints", body)
    assert refused.value.status == 403


def test_the_page_shows_what_is_best_and_treats_names_as_text(client) -> None:
    text = client._session._client.get("/").text
    assert "a certified merge" in text
    assert "winner beats newest" in text
    assert "<script" not in text


def test_the_document_of_the_interface_is_complete(client) -> None:
    api = client._session.json("GET", "/openapi.json")
    operations = [
        operation
        for path in api["paths"].values()
        for method, operation in path.items()
        if method in {"get", "head", "put", "post", "patch", "delete"}
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names) > 20
    assert all(operation.get("summary") for operation in operations)
    assert client._session._client.get("/docs").status_code == 200


def test_what_is_not_there_is_said_to_be_missing(client) -> None:
    for path in ("/v1/runs/none", "/v1/runs/none/best", "/v1/studies/s_none", "/v1/nothing"):
        with pytest.raises(ServiceError) as missing:
            client._session.json("GET", path)
        assert missing.value.status == 404


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_change_nothing(
    trained_run, tmp_path: Path, undisturbed, seed: int
) -> None:
    """Service and worker are killed -9 again and again; the study ends as if nothing had been."""
    drawn = random.Random(seed)  # noqa: S311 - moments, not secrets
    with RunningService(tmp_path, trained_run.held_out) as service:
        with Client(service.url) as client:
            search(client, trained_run.checkpoints[-STEPS:])
        for _ in range(4):
            time.sleep(drawn.uniform(0.5, 6.0))
            if drawn.random() < 0.5:
                service.kill()
                service.start()
            else:
                service.kill_worker()  # the service starts another
        with Client(service.url) as client:
            wait_for(lambda: decided(client, "run"), 240, service.log)
            best = client.best("run").answer
            trials = client.trials(next(iter(client.studies("run"))).id)
            assert_same(best, undisturbed.best())
            observed = [trial for trial in trials if trial.state == "observed"]
            assert [t.trial for t in observed] == list(range(len(observed)))
            folder = client.best("run").download(tmp_path / "champion")
    assert str(read_manifest(folder).digest) == best.digest


def test_what_settles_in_a_watched_folder_is_registered(trained_run, tmp_path: Path) -> None:
    root = tmp_path / "My Run"
    root.mkdir()
    with RunningService(tmp_path, trained_run.held_out, workers=0, watch=root) as service:
        half = root / "step-1"
        half.mkdir()
        content = (trained_run.checkpoints[0] / "model.safetensors").read_bytes()
        (half / "model.safetensors").write_bytes(content[:1000])
        shutil.copytree(trained_run.checkpoints[-1], root / "step-300")
        with Client(service.url) as client:
            wait_for(lambda: [run.checkpoints for run in client.runs()] == [1], 60, service.log)
            assert [run.name for run in client.runs()] == ["my-run"]
            best = client.best("my-run").answer
            assert (best.kind, best.step, best.promoted) == ("checkpoint", 300, False)


def test_a_worker_that_is_killed_is_replaced(trained_run, tmp_path: Path) -> None:
    with RunningService(tmp_path, trained_run.held_out) as service:
        wait_for(lambda: service.processes("worker --url"), 30)
        first = service.processes("worker --url")
        assert service.kill_worker()
        wait_for(lambda: service.processes("worker --url") not in ([], first), 30, service.log)
        (second,) = service.processes("worker --url")
    assert not (Path("/proc") / str(second)).exists()


def test_it_ends_when_asked_and_leaves_nothing_running(trained_run, tmp_path: Path) -> None:
    service = RunningService(tmp_path, trained_run.held_out)
    service.start()
    wait_for(lambda: service.processes("worker --url"), 30)
    children = [*service.processes("worker --url"), *service.processes("workflow.propose")]
    assert len(children) == 2
    assert service.stop() == 0
    assert not [pid for pid in children if (Path("/proc") / str(pid)).exists()]


def test_a_second_service_on_the_same_data_is_refused(served) -> None:
    data = served.folder / "data"
    ran = subprocess.run(
        [*COMMAND, "serve", "--data", data, "--port", "0"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 78
    assert "already" in ran.stderr
