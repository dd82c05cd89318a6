"""The demo on a smaller model: it ends well, would not if what it says did not hold, and survives
its service and its worker being killed."""

import html
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from safetensors.torch import load_file, save_file

from ckptmerge import merge
from ckptmerge.cli.main import run
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.storage.records import RunRecord, StudyRecord, TaskRecord
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire.best import Best
from ckptmerge.wire.studies import StudyResource, TrialResource
from ckptmerge.workflow.answers import study_resource, trial_resources
from ckptmerge.workflow.stored import load_study
from service.demo import judge
from service.demo.processes import DemoFailedError
from tests.e2e.processes import processes_of
from tests.e2e.running import wait_for

INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in a background
from ckptmerge.cli.main import main
main()
"""

SMALL = ["--plan", "fixture", "--steps", "240"]


@dataclass
class Demo:
    """A demo in a process group of its own."""

    out: Path
    process: subprocess.Popen[bytes]
    page: str = ""
    """Its dashboard, once all was said."""

    def processes(self, command: str) -> list[int]:
        return processes_of(self.process.pid, command)

    def said(self) -> str:
        return (self.out.parent / "said").read_text(errors="replace")

    @property
    def best(self) -> Best:
        """What the champion's own file says."""
        answer = json.loads((self.out / "champion" / "recipe.json").read_text())["best"]
        return Best.model_validate(answer)

    def records(self) -> tuple[list[StudyResource], list[list[TrialResource]]]:
        """What the service has left on disk."""
        store = SqliteStore(self.out / "service" / "ckptmerge.sqlite")
        try:
            with store.read() as snapshot:
                return _studies(snapshot)
        finally:
            store.close()


def _studies(snapshot: Snapshot) -> tuple[list[StudyResource], list[list[TrialResource]]]:
    records = snapshot.find(StudyRecord)
    return (
        [study_resource(snapshot, record) for record in records],
        [trial_resources(load_study(snapshot, record.id)) for record in records],
    )


def started(folder: Path, *options: str) -> Demo:
    out = folder / "demo"
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, "demo", "--out", out, *SMALL, *options],
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    return Demo(out, process)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demo that went on serving, was looked at, and was ended by Ctrl-C."""
    demo = started(tmp_path_factory.mktemp("finished"), "--keep")
    kept = re.compile(r"the dashboard is (http://\S+)")
    wait_for(lambda: kept.search(demo.said()) or demo.process.poll() is not None, 500)
    found = kept.search(demo.said())
    assert found is not None, demo.said()[-3000:]
    demo.page = httpx2.get(found[1]).text
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0, demo.said()[-3000:]
    return demo


def test_the_demo_serves_trains_merges_certifies_and_downloads(finished: Demo) -> None:
    assert len(list((finished.out / "run").glob("step-*"))) == 12
    best = finished.best
    assert (best.kind, best.promoted, best.step) == ("merge", True, 240), "a constant-rate run"
    assert str(read_manifest(finished.out / "champion").digest) == best.digest
    assert "gain over newest: +" in finished.said()


def test_its_studies_end_where_they_were_due_and_are_all_decided(finished: Demo) -> None:
    studies, trials = finished.records()
    assert [study.steps[-1] for study in studies][-1] == 240
    assert {study.steps[-1] for study in studies} <= {80, 160, 240}
    for study, of_study in zip(studies, trials, strict=True):
        judge.require_decided(study, of_study)


def test_training_does_not_wait_for_the_service(finished: Demo) -> None:
    said = next(line for line in finished.said().splitlines() if "training waited" in line)
    seconds, checkpoints = float(said.split()[2]), int(said.split()[-2])
    assert checkpoints == 12
    assert seconds < 5, "links are made in milliseconds; an upload or a study takes far longer"


def test_it_goes_on_serving_with_a_page_to_look_at(finished: Demo) -> None:
    assert "a certified merge" in finished.page
    assert finished.best.reason in html.unescape(finished.page)


def test_nothing_is_left_running(finished: Demo) -> None:
    assert finished.processes("") == []


def test_the_demo_fails_when_its_bytes_are_not_what_it_said(finished: Demo, tmp_path) -> None:
    judge.require_bytes(finished.best, finished.out / "champion")
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in (finished.out / "champion").iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    tensors = load_file(changed / "model.safetensors")
    tensors["model.norm.weight"] *= 1.01
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DemoFailedError, match="digest"):
        judge.require_bytes(finished.best, changed)
    with pytest.raises(DemoFailedError, match="scores"):
        judge.require_score(finished.best, changed, finished.out / "run" / "held-out.jsonl")


def test_the_demo_fails_when_the_audit_contradicts_the_certificate(finished: Demo) -> None:
    answer = finished.best.model_dump(mode="json")
    answer["gains"][0] |= {"mean": -0.001, "low": -0.002, "high": 0.001}
    with pytest.raises(DemoFailedError, match="audit split"):
        judge.require_confirmed(Best.model_validate(answer))


def test_the_demo_fails_when_an_observation_is_lost_or_doubled(finished: Demo) -> None:
    studies, trials = finished.records()
    study, of_study = studies[-1], trials[-1]
    for wrong in (of_study[:-1], [*of_study, of_study[-1]]):
        with pytest.raises(DemoFailedError, match="observed"):
            judge.require_decided(study, wrong)
    refused = study.model_copy(update={"state": "refused"})
    with pytest.raises(DemoFailedError, match="refused"):
        judge.require_decided(refused, of_study)


def test_the_demo_never_clears_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    assert run(["demo", "--out", str(tmp_path)]) == 1
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("whole_group", [True, False], ids=["on a terminal", "by kill"])
def test_ctrl_c_leaves_nothing_running(tmp_path: Path, *, whole_group: bool) -> None:
    demo = started(tmp_path)
    wait_for(lambda: demo.processes("worker --url"), 60, demo.said)
    wait_for(lambda: demo.processes("ckptmerge.pretrain"), 60, demo.said)
    if whole_group:
        os.killpg(demo.process.pid, signal.SIGINT)
    else:
        demo.process.terminate()
    assert demo.process.wait(60) != 0
    wait_for(lambda: not demo.processes(""), 10)


def test_kills_during_the_demo_change_nothing(tmp_path: Path, finished: Demo) -> None:
    """Service and worker are killed -9 while training goes on and after it."""
    drawn = random.Random(3)  # noqa: S311 - moments, not secrets
    demo = started(tmp_path)
    wait_for(lambda: demo.processes("worker --url"), 60, demo.said)
    kills = 0
    while demo.process.poll() is None and kills < 8:
        time.sleep(drawn.uniform(2.0, 9.0))
        victim = drawn.choice(["worker --url", "main() serve"])
        for process in demo.processes(victim)[:1]:
            os.kill(process, signal.SIGKILL)
            kills += 1
    assert demo.process.wait(500) == 0, demo.said()[-3000:]
    assert kills >= 4
    assert "the service died" in demo.said()
    assert demo.best.promoted
    assert demo.best.score is not None
    assert finished.best.score is not None
    assert abs(demo.best.score.mean - finished.best.score.mean) < 0.002
    studies, trials = demo.records()
    for study, of_study in zip(studies, trials, strict=True):
        judge.require_decided(study, of_study)
    rebuilt = _rebuilt(demo, tmp_path / "rebuilt")
    champion = demo.out / "champion" / "model.safetensors"
    assert (rebuilt / "model.safetensors").read_bytes() == champion.read_bytes()


def _rebuilt(demo: Demo, out: Path) -> Path:
    """Merge the run's own checkpoints by hand, with the weights that were found."""
    weights = demo.best.weights or []
    folders = [demo.out / "run" / f"step-{weight.step:05d}" for weight in weights]
    merge(folders, weights=[weight.weight for weight in weights], out=out)
    return out


def test_what_was_kept_can_be_served_again(finished: Demo) -> None:
    store = SqliteStore(finished.out / "service" / "ckptmerge.sqlite")
    with store.read() as snapshot:
        (known,) = snapshot.find(RunRecord)
        assert known.best == finished.best.artifact
        assert not [t for t in snapshot.find(TaskRecord) if not t.task.over]
    store.close()
