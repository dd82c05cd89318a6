"""The drill: back up a service under load, restore elsewhere, serve again, and lose nothing."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from ckptmerge.client.client import Client
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.storage.records import BlobRecord, CheckpointRecord, TaskRecord
from ckptmerge.storage.sqlite import SqliteStore
from service.data_folder import BLOBS, DATABASE
from service.operation.manifest import read_manifest as read_backup
from service.operation.stored import blobs_beneath, hash_of, place_of
from tests.e2e.running import COMMAND, RunningService, decided, wait_for
from tests.e2e.searched import search

STEPS, BUDGET = 2, 6
"""A short study, over the last checkpoints."""

WINDOW = 64
"""Checkpoints that the load's run would need for a study; it never gets as many."""


def ckptmerge(*arguments: str | Path) -> dict[str, object]:
    ran = subprocess.run(
        [*COMMAND, *arguments, "--json"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


@contextmanager
def pushing(url: str, source: Path) -> Iterator[list[int]]:
    """Push checkpoints to a run of their own, one after the other; yields the steps that landed."""
    config = json.loads((source / "config.json").read_text())
    landed: list[int] = []
    stop = Event()

    def push() -> None:
        with Client(url) as client:
            while not stop.wait(0.5) and len(landed) < WINDOW - 1:
                step = len(landed) + 1
                (source / "config.json").write_text(json.dumps({**config, "pushed": step}))
                landed.append(client.push(source, run="load", step=step).step)

    pusher = Thread(target=push, daemon=True)
    pusher.start()
    try:
        yield landed
    finally:
        stop.set()
        pusher.join(30)


def observed(client: Client, study: str) -> int:
    return sum(trial.state == "observed" for trial in client.trials(study))


def records(data: Path, kind: type) -> list:
    store = SqliteStore(data / DATABASE)
    try:
        with store.read() as snapshot:
            return snapshot.find(kind)
    finally:
        store.close()


def test_a_backup_under_load_is_served_again_and_goes_on(trained_run, tmp_path: Path) -> None:
    source = shutil.copytree(trained_run.checkpoints[0], tmp_path / "source")
    backup, again = tmp_path / "backup", tmp_path / "again"
    for folder in (tmp_path / "first", again):
        folder.mkdir()
    running = RunningService(tmp_path / "first", trained_run.held_out)
    with running as service, Client(service.url) as client:
        search(client, trained_run.checkpoints[-STEPS:], budget=BUDGET)
        window = {"size": WINDOW, "every": WINDOW, "minimum": WINDOW}
        client._session.json("POST", "/v1/runs", {"name": "load", "window": window})
        study = next(iter(client.studies("run"))).id
        with pushing(service.url, source) as landed:
            wait_for(lambda: len(landed) > 1 and observed(client, study), 90, service.log)
            before, said = len(landed), observed(client, study)
            ckptmerge("backup", "--data", service.folder / "data", "--out", backup)
            after = len(landed)
            assert not decided(client, "run"), "the study was over before the backup was"
            wait_for(lambda: len(landed) > after + 1, 60, service.log)
        assert ckptmerge("scrub", "--data", service.folder / "data")["wrong"] == []
        wait_for(lambda: decided(client, "run"), 120, service.log)
        undisturbed = client.best("run").answer

    ckptmerge("restore", backup, "--data", again / "data")
    held = read_backup(backup)
    assert set(blobs_beneath(again / "data" / BLOBS)) == {blob.hex for blob in held.blobs}
    assert all(
        hash_of(place_of(again / "data" / BLOBS, blob.hex)) == blob.hex for blob in held.blobs
    )
    kept = records(again / "data", CheckpointRecord)
    on_record = {row.hex for row in records(again / "data", BlobRecord)}
    assert all(file.digest.hex in on_record for each in kept for file in each.manifest.files)
    steps = [each.step for each in kept if each.run == "load"]
    assert steps == list(range(1, len(steps) + 1))
    assert before <= len(steps) < len(landed), "what was acknowledged before, and no more"
    known = [task for task in records(again / "data", TaskRecord) if task.observation is not None]
    assert len(known) >= said

    with RunningService(again, trained_run.held_out) as service, Client(service.url) as client:
        assert "files were lost" not in service.log()
        assert client.run("load").checkpoints == len(steps)
        wait_for(lambda: decided(client, "run"), 180, service.log)
        best = client.best("run")
        assert best.answer.weights is not None
        assert [w.weight for w in best.answer.weights] == [
            w.weight for w in undisturbed.weights or ()
        ]
        assert best.answer.digest == undisturbed.digest
        assert best.answer.certificate == undisturbed.certificate
        folder = best.download(tmp_path / "champion")
    assert str(read_manifest(folder).digest) == undisturbed.digest
