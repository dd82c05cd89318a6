"""Worker and service killed -9 in the middle of every kind of lease: nothing shows it afterwards.

One study a victim, in which it is killed three times: while a candidate is scored, when a merge has
been written but not handed in, and while the merge's bytes are certified. The worker is stopped
first, so that the kill lands where it is meant to.
"""

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from ckptmerge import merge
from ckptmerge.client.client import Client
from ckptmerge.domain.task import TaskState
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.records import AlphaRecord, ArtifactRecord, BlobRecord, TaskRecord
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.wire.best import Best
from ckptmerge.wire.studies import TrialResource
from ckptmerge.workflow.reconcile import reconcile
from tests.e2e.processes import processes_of
from tests.e2e.running import RunningService, decided, wait_for
from tests.e2e.searched import assert_same, search, search_alone

STEPS, BUDGET = 2, 6
"""A short study; the longer, the more there is to wait for."""

KINDS = ("evaluate", "materialise", "certify")

BEGUN = {
    "evaluate": "ckptmerge-lease-*/*",
    "materialise": "ckptmerge-lease-*/*merged*",
    "certify": "ckptmerge-lease-*/*",
}
"""What lies in a worker's own folder once it has begun: of a merge, the bytes that it wrote."""

DONE_BEFORE = 3
"""Tasks that are done when the first kill comes: so that there is something to be lost."""


@dataclass(frozen=True)
class Held:
    """A lease, as the service's database has it."""

    task: str
    fence: int
    worker: int
    """Process id of whoever holds it."""


@dataclass
class Killed:
    """What a service has come to that lost its worker, or itself, in the middle of every kind."""

    victim: str
    folder: Path
    """Of its data and its temporary files."""
    held: dict[str, Held] = field(default_factory=dict)
    """The lease that each kill fell into."""
    left: dict[str, list[Path]] = field(default_factory=dict)
    """What the dead worker had on the disk."""
    still_left: dict[str, list[Path]] = field(default_factory=dict)
    """What of it was there when another worker had been started in its place."""
    best: Best | None = None
    trials: list[TrialResource] = field(default_factory=list)
    champion: Path | None = None

    def records(self, kind):
        store = SqliteStore(self.folder / "data" / "ckptmerge.sqlite")
        try:
            with store.read() as snapshot:
                return snapshot.find(kind)
        finally:
            store.close()


def tasks(service: RunningService, state: TaskState) -> list[dict]:
    """Read tasks behind the service's back, without a lock that it could wait for."""
    file = service.folder / "data" / "ckptmerge.sqlite"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT body FROM tasks WHERE state = ?", (state,)).fetchall()
    return [json.loads(body) for (body,) in rows]


def lease_of(service: RunningService, kind: str) -> Held | None:
    for record in tasks(service, TaskState.LEASED):
        task = record["task"]
        holder = service.processes(f"--name {task['worker']}")
        if record["kind"] == kind and holder:
            return Held(record["id"], task["fence"], holder[0])
    return None


def scratch(service: RunningService, kind: str) -> list[Path]:
    return list((service.folder / "data").glob(f".workers-*/*/{BEGUN[kind]}"))


def stop_in_the_middle(service: RunningService, kind: str) -> Held:
    """Stop the worker while it does a lease of a kind, and return the lease."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        held = lease_of(service, kind)
        if held is not None and scratch(service, kind):
            os.kill(held.worker, signal.SIGSTOP)
            time.sleep(0.2)  # for an outcome that was on its way
            if lease_of(service, kind) == held and scratch(service, kind):
                return held
            os.kill(held.worker, signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError(f"no lease to {kind} within two minutes: {service.log()[-3000:]}")


def kill_worker(service: RunningService, held: Held) -> None:
    os.kill(held.worker, signal.SIGKILL)
    wait_for(lambda: service.processes("worker --url") not in ([], [held.worker]), 30, service.log)


def kill_service(service: RunningService, held: Held) -> None:
    """Kill the service while its worker stands still; the worker finds it gone, and ends."""
    group = os.getpgid(held.worker)
    service.kill()
    os.kill(held.worker, signal.SIGCONT)
    wait_for(lambda: not processes_of(group, "worker --url"), 10)
    service.start()


@pytest.fixture(scope="module")
def undisturbed(trained_run, tmp_path_factory):
    looks = tmp_path_factory.mktemp("looks") / "looks.jsonl"
    checkpoints = trained_run.checkpoints[-STEPS:]
    return search_alone(checkpoints, trained_run.held_out, looks, budget=BUDGET)


@pytest.fixture(scope="module", params=["worker", "service"])
def killed(request, trained_run, tmp_path_factory) -> Killed:
    victim: Literal["worker", "service"] = request.param
    found = Killed(victim, tmp_path_factory.mktemp(f"killed-{victim}"))
    temporary = found.folder / "tmp"
    temporary.mkdir()
    with RunningService(
        found.folder, trained_run.held_out, environ={"TMPDIR": str(temporary)}
    ) as service:
        with Client(service.url) as client:
            search(client, trained_run.checkpoints[-STEPS:], budget=BUDGET)
        wait_for(lambda: len(tasks(service, TaskState.DONE)) >= DONE_BEFORE, 120, service.log)
        for kind in KINDS:
            found.held[kind] = held = stop_in_the_middle(service, kind)
            found.left[kind] = scratch(service, kind)
            (kill_worker if victim == "worker" else kill_service)(service, held)
            found.still_left[kind] = [path for path in found.left[kind] if path.exists()]
        with Client(service.url) as client:
            wait_for(lambda: decided(client, "run"), 180, service.log)
            found.trials = list(client.trials(next(iter(client.studies("run"))).id))
            found.champion = client.best("run").download(found.folder / "champion")
            found.best = client.best("run").answer
        assert service.stop() == 0
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_is_done_again_by_another_worker_and_counts_once(killed: Killed, kind) -> None:
    held = killed.held[kind]
    (record,) = [r for r in killed.records(TaskRecord) if r.id == held.task]
    assert record.kind == kind
    assert record.state == TaskState.DONE
    assert (record.task.fence, record.task.attempts) == (held.fence + 1, 2)
    assert record.task.outcome is not None
    assert record.task.outcome.status == "ok"
    # The service knows when its own worker dies; after its own death a lease has to run out.
    reason = "died" if killed.victim == "worker" else "not heard of"
    assert reason in (record.task.reason or "")


def test_no_other_task_is_done_again(killed: Killed) -> None:
    fell = {held.task for held in killed.held.values()}
    assert len(fell) == len(KINDS)
    others = [record for record in killed.records(TaskRecord) if record.id not in fell]
    assert {record.state for record in others} == {TaskState.DONE}
    assert {record.task.fence for record in others} == {1}


def test_the_study_ends_as_if_nothing_had_happened(killed: Killed, undisturbed) -> None:
    best, local = killed.best, undisturbed.best()
    assert_same(best, local)
    assert best.certificate.p == local.certificate.p
    assert best.gains == local.gains
    assert best.passes == local.passes
    (spent,) = killed.records(AlphaRecord)
    assert spent.number == 1


def test_no_trial_is_observed_twice_or_lost(killed: Killed, undisturbed) -> None:
    alone = undisturbed.study.trials
    assert [trial.trial for trial in killed.trials] == list(range(len(alone)))
    assert {trial.state for trial in killed.trials} == {"observed"}
    for trial, expected in zip(killed.trials, alone, strict=True):
        assert trial.weights == list(expected.weights.values)
        assert trial.value == expected.observation.value


def test_the_champion_is_what_was_promised_and_is_rebuilt_bit_for_bit(
    killed: Killed, trained_run, tmp_path: Path
) -> None:
    assert str(read_manifest(killed.champion).digest) == killed.best.digest
    steps = {path.name.rpartition("-")[2]: path for path in trained_run.checkpoints}
    folders = [steps[f"{weight.step:05d}"] for weight in killed.best.weights]
    rebuilt = tmp_path / "rebuilt"
    merge(folders, weights=[weight.weight for weight in killed.best.weights], out=rebuilt)
    name = "model.safetensors"
    assert (rebuilt / name).read_bytes() == (killed.champion / name).read_bytes()


def test_no_half_written_merge_is_to_be_seen(killed: Killed) -> None:
    """Every merge has all its bytes, and no bytes lie there that nobody accounts for."""
    data = killed.folder / "data"
    artifacts = killed.records(ArtifactRecord)
    assert len({artifact.name for artifact in artifacts}) == len(artifacts)
    store, blobs = SqliteStore(data / "ckptmerge.sqlite"), FolderBlobStore(data / "blobs")
    try:
        for artifact in artifacts:
            for file in artifact.manifest.files:
                assert blobs.size(file.digest) == file.size
        found = reconcile(store, blobs, now=0.0, new_id=lambda kind: f"{kind}_new")
        assert (found.lost, found.damaged, found.unrecorded) == ((), (), 0)
        assert len(list(blobs)) == len(killed.records(BlobRecord))
    finally:
        blobs.close()
        store.close()
    assert not list((data / "blobs").glob(".incoming-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_dead_worker_leaves_is_cleared_away(killed: Killed, kind) -> None:
    assert killed.left[kind], "else there was nothing to clear away"
    assert killed.still_left[kind] == []
    assert list((killed.folder / "data").glob(".workers-*")) == []
    assert list((killed.folder / "tmp").iterdir()) == []
