from pathlib import Path

import pytest

import ckptmerge.pretrain.__main__ as command
from ckptmerge.evaluation.documents import Document, load_held_out
from ckptmerge.pretrain.job import TrainingPlan
from ckptmerge.pretrain.model import ModelShape
from ckptmerge.pretrain.text import Corpus

SHAPE = ModelShape(hidden=16, layers=1, heads=2, vocabulary=257, context=8)
PLAN = TrainingPlan(shape=SHAPE, steps=4, every=2, learning_rate=1e-2, warmup=1)
HELD_OUT = (Document(text="one"), Document(text="two"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    corpus = Corpus(train={"code": ("x = 1\n" * 20,)}, held_out=HELD_OUT)
    monkeypatch.setattr(command, "read_corpus", lambda **_: corpus)
    monkeypatch.setitem(command.PLANS, "demo", PLAN)


def test_the_command_writes_a_run_and_what_to_judge_it_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert command.main(["--out", str(tmp_path / "run")]) == 0
    names = [path.name for path in sorted((tmp_path / "run").iterdir())]
    assert names == ["held-out.jsonl", "step-00002", "step-00004"]
    assert load_held_out(tmp_path / "run" / "held-out.jsonl").documents == HELD_OUT
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 2 of 4", "step 4 of 4"]
    assert "nan" not in lines[0]


def test_the_command_takes_schedule_and_seed(tmp_path: Path):
    for name, options in {"a": [], "b": ["--seed", "1"], "c": ["--schedule", "cosine"]}.items():
        assert command.main(["--out", str(tmp_path / name), *options]) == 0
    weights = {path.read_bytes() for path in tmp_path.glob("*/step-00004/model.safetensors")}
    assert len(weights) == 3


def test_the_command_refuses_a_folder_with_a_run_and_leaves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "step-00010").mkdir()
    assert command.main(["--out", str(tmp_path)]) == 1
    assert "already holds checkpoints" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["step-00010"]
