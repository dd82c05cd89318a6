import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ckptmerge.errors import InvalidInputError, OutputExistsError
from ckptmerge.pretrain import job
from ckptmerge.pretrain.job import DEMO, TrainingPlan, pretrain
from ckptmerge.pretrain.model import ModelShape, build_model
from ckptmerge.pretrain.text import Corpus

SHAPE = ModelShape(hidden=16, layers=1, heads=2, vocabulary=300, context=8)
PLAN = TrainingPlan(shape=SHAPE, steps=6, every=3, learning_rate=1e-2, warmup=2, batch=4)
CORPUS = Corpus(
    train={
        "numbers": tuple(f"{n} and {n + 1} make {2 * n + 1}\n" for n in range(200)),
        "letters": ("abcdefghijklmnopqrstuvwxyz " * 40,),
    },
    held_out=(),
)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_checkpoints_are_folders_that_transformers_reads(tmp_path: Path):
    checkpoints = pretrain(CORPUS, PLAN, tmp_path / "run")
    assert checkpoints == tuple(tmp_path / "run" / name for name in ("step-00003", "step-00006"))
    assert sorted((tmp_path / "run").iterdir()) == list(checkpoints)
    for checkpoint in checkpoints:
        model = AutoModelForCausalLM.from_pretrained(checkpoint)
        ids = AutoTokenizer.from_pretrained(checkpoint)("3 and 4", return_tensors="pt")
        assert torch.isfinite(model(**ids).logits).all()
        assert model.dtype is torch.float32


def test_a_checkpoint_says_its_step_and_tokens(tmp_path: Path):
    first, _ = pretrain(CORPUS, PLAN, tmp_path)
    state = json.loads((first / "trainer_state.json").read_text())
    assert state == {"global_step": 3, "num_input_tokens_seen": 3 * 4 * 8}


def test_progress_is_reported_once_a_step_and_once_a_checkpoint(tmp_path: Path):
    steps: list[int] = []
    seen: list[tuple[int, Path, bool]] = []
    pretrain(
        CORPUS,
        PLAN,
        tmp_path,
        on_step=lambda step, loss: steps.append(step) if loss > 0 else None,
        on_checkpoint=lambda step, folder: seen.append((step, folder, folder.is_dir())),
    )
    assert steps == [1, 2, 3, 4, 5, 6]
    assert seen == [(3, tmp_path / "step-00003", True), (6, tmp_path / "step-00006", True)]


def test_a_seed_gives_the_same_bytes_again_whatever_was_drawn_before(tmp_path: Path):
    pretrain(CORPUS, PLAN, tmp_path / "a")
    torch.rand(7)
    pretrain(CORPUS, PLAN, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_gives_another_run(tmp_path: Path):
    first, *_ = pretrain(CORPUS, PLAN, tmp_path / "a")
    other, *_ = pretrain(CORPUS, replace(PLAN, seed=1), tmp_path / "b")
    weights = "model.safetensors"
    assert (first / weights).read_bytes() != (other / weights).read_bytes()


def test_training_lowers_the_loss(tmp_path: Path):
    losses: list[float] = []
    plan = replace(PLAN, steps=60, every=60)
    pretrain(CORPUS, plan, tmp_path, on_step=lambda _, loss: losses.append(loss))
    assert sum(losses[-5:]) / 5 < losses[0] - 1


def test_a_second_run_in_one_folder_is_refused(tmp_path: Path):
    pretrain(CORPUS, PLAN, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(OutputExistsError, match="name another folder"):
        pretrain(CORPUS, replace(PLAN, seed=1), tmp_path)
    assert contents(tmp_path) == before


def test_a_checkpoint_cut_short_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path) -> None:
        assert path.parent.name == ".step-00003.partial"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "_flush", full)
    with pytest.raises(OSError, match="No space left"):
        pretrain(CORPUS, PLAN, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_no_checkpoint_and_does_not_stay(tmp_path: Path):
    partial = tmp_path / ".step-00003.partial"
    partial.mkdir()
    (partial / "stale.bin").touch()
    first, _ = pretrain(CORPUS, PLAN, tmp_path)
    assert not partial.exists()
    assert not (first / "stale.bin").exists()


def test_a_checkpoint_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flushed: list[Path] = []
    flush = job._flush
    monkeypatch.setattr(job, "_flush", lambda path: (flushed.append(path), flush(path)))
    first, _ = pretrain(CORPUS, PLAN, tmp_path)
    partial = tmp_path / ".step-00003.partial"
    named = flushed.index(tmp_path)
    assert set(flushed[:named]) == {partial, *(partial / path.name for path in first.iterdir())}


def test_threads_and_progress_bars_are_as_before_afterwards(tmp_path: Path):
    during: list[tuple[int, bool]] = []
    logging.enable_progress_bar()
    pretrain(
        CORPUS,
        replace(PLAN, steps=1, every=1),
        tmp_path,
        threads=2,
        on_checkpoint=lambda *_: during.append(
            (torch.get_num_threads(), logging.is_progress_bar_enabled())
        ),
    )
    assert set(during) == {(2, False)}
    assert (torch.get_num_threads(), logging.is_progress_bar_enabled()) == (1, True)


def test_a_run_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    pretrain(CORPUS, PLAN, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_domain_shorter_than_a_sequence_is_refused(tmp_path: Path):
    corpus = Corpus(train={**CORPUS.train, "short": ("a b c",)}, held_out=())
    with pytest.raises(InvalidInputError, match=r"'short' is \d tokens long"):
        pretrain(corpus, PLAN, tmp_path)


def test_every_domain_is_read_alike_whatever_its_size():
    domains = [torch.zeros(10_000, dtype=torch.long), torch.ones(20, dtype=torch.long)]
    plan = replace(PLAN, batch=1000)
    batch = job._draw(domains, plan, torch.Generator().manual_seed(0))
    assert batch.shape == (1000, 8)
    assert batch.float().mean() == pytest.approx(0.5, abs=0.05)


def test_sequences_reach_to_both_ends_of_a_text():
    tokens = torch.arange(12)
    batch = job._draw([tokens], replace(PLAN, batch=200), torch.Generator().manual_seed(0))
    assert sorted(set(batch[:, 0].tolist())) == [0, 1, 2, 3, 4]
    assert (batch.diff() == 1).all()


def test_the_constant_schedule_warms_up_and_stays():
    plan = replace(PLAN, steps=100, every=10, warmup=10, learning_rate=1.0)
    assert [plan.rate(step) for step in (1, 5, 10, 11, 100)] == [0.1, 0.5, 1.0, 1.0, 1.0]


def test_the_cosine_schedule_ends_at_a_tenth():
    plan = replace(PLAN, steps=110, every=10, warmup=10, learning_rate=1.0, schedule="cosine")
    rates = [plan.rate(step) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)
    assert [rates[0], rates[50], rates[100]] == pytest.approx([1.0, 0.55, 0.1])


def test_weights_decay_in_matrices_alone():
    model = build_model(SHAPE, seed=0)
    decays = {
        id(parameter): group["weight_decay"]
        for group in job._optimizer(model, PLAN).param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.0 if "norm" in name else 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 100, "every": 30}, "take 90 steps"),
        ({"steps": 20, "every": 30}, "take 30 steps"),
        ({"batch": 0}, "must be positive"),
        ({"learning_rate": -1.0}, "must be positive"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(change: dict[str, float], message: str):
    with pytest.raises(InvalidInputError, match=message):
        replace(DEMO, **change)
