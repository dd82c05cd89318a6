"""The command line as a user drives it, on really trained checkpoints."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TrainedRun
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ckptmerge.cli.main import run
from ckptmerge.wire.best import Best

Captured = pytest.CaptureFixture[str]


def answer(capsys: Captured) -> dict[str, object]:
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def held_out(trained_run: TrainedRun, tmp_path: Path) -> Path:
    copy = tmp_path / "held-out.jsonl"
    rows = [json.loads(line) for line in trained_run.held_out.read_text().splitlines()]
    copy.write_text("\n".join(json.dumps(r) for r in rows if r["domain"] != "code"))
    return copy


def test_optimize_writes_a_certified_merge_and_says_so_in_json(
    trained_run: TrainedRun, held_out: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "merged"
    pair = [str(path) for path in trained_run.checkpoints[-2:]]
    arguments = ["--held-out", str(held_out), "--space", "pair", "--budget", "6", "--json"]
    assert run(["optimize", *pair, *arguments, "--out", str(out)]) == 0
    best = Best.model_validate(answer(capsys))
    assert best.promoted
    assert [file.name for file in best.files if file.name == "model.safetensors"]
    assert all(Path(file.href).stat().st_size == file.size for file in best.files)
    assert best.certificate is not None
    assert best.certificate.passed
    assert json.loads((out / "recipe.json").read_text())["best"]["digest"] == best.digest
    AutoModelForCausalLM.from_pretrained(out)
    assert not list(tmp_path.glob(".ckptmerge-uncertified-*/*")), "scratch folders are emptied"
    assert run(["optimize", *pair, *arguments, "--out", str(out)]) == 1, "never overwritten"


def test_merge_takes_weights_by_hand(
    trained_run: TrainedRun, tmp_path: Path, capsys: Captured
) -> None:
    pair = trained_run.checkpoints[-2:]
    out = tmp_path / "merged"
    arguments = ["--weights", "0.25,0.75", "--dtype", "bf16", "--json", "--out", str(out)]
    assert run(["merge", *map(str, pair), *arguments]) == 0
    assert answer(capsys)["recipe"]["weights"] == [0.25, 0.75]
    one, other, merged = (load_file(f / "model.safetensors") for f in (*pair, out))
    for name, tensor in merged.items():
        expected = one[name] * 0.25 + other[name] * 0.75
        assert torch.equal(tensor, expected.bfloat16())


def test_evaluate_gives_an_interval_and_logs_looks(
    trained_run: TrainedRun, held_out: Path, capsys: Captured
) -> None:
    newest = str(trained_run.checkpoints[-1])
    assert run(["evaluate", newest, "--held-out", str(held_out), "--json"]) == 0
    score = answer(capsys)["score"]
    assert score["low"] < score["mean"] < score["high"]
    assert set(score["domains"]) == {"reference", "docstrings"}
    log = held_out.with_name("held-out.jsonl.looks.jsonl")
    assert not log.exists(), "the whole set is not a look at one split"
    assert run(["evaluate", newest, "--held-out", str(held_out), "--split", "audit"]) == 0
    assert '"audit"' in log.read_text()


def test_inspect_verifies_and_compares(trained_run: TrainedRun, capsys: Captured) -> None:
    one, other = (str(path) for path in trained_run.checkpoints[-2:])
    assert run(["inspect", one, "--compare", other, "--json"]) == 0
    shown = answer(capsys)
    assert shown["missing"] == []
    assert 0.9 < shown["compare"]["cosine"] < 1
    assert run(["inspect", one]) == 0
    assert shown["digest"] in capsys.readouterr().out


def test_heldout_shows_and_exports_the_splits(
    held_out: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert run(["heldout", "split", str(held_out), "--json"]) == 0
    counts = answer(capsys)["splits"]
    total = sum(c["documents"] for split in counts.values() for c in split.values())
    out = tmp_path / "splits"
    assert run(["heldout", "export", str(held_out), "--out", str(out)]) == 0
    capsys.readouterr()
    lines = [len((out / f"{s}.jsonl").read_text().splitlines()) for s in counts]
    assert sum(lines) == total
    assert run(["heldout", "export", str(held_out), "--out", str(out)]) == 1


def spoilt(folder: Path, copy: Path, change: str) -> Path:
    """Copy a checkpoint and spoil its weights."""
    shutil.copytree(folder, copy)
    file = copy / "model.safetensors"
    tensors = load_file(file)
    if change == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif change == "pickle":
        file.write_bytes(b"\x80\x02" + b"}" * 100)
    elif change == "nan":
        tensors["model.norm.weight"][0] = float("nan")
        save_file(tensors, file)
    elif change == "missing":
        del tensors["model.norm.weight"]
        save_file(tensors, file)
    elif change == "shape":
        tensors["model.norm.weight"] = torch.ones(3)
        save_file(tensors, file)
    elif change == "vocabulary":
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:-7].clone()
        save_file(tensors, file)
    elif change == "duplicate":
        raw = file.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = raw[8 : 8 + size].rstrip()
        entry = b',"model.norm.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
        header = header[:-1] + entry
        file.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + size :])
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("truncated", "bytes"),
        ("pickle", "safetensors"),
        ("nan", "NaN"),
        ("missing", "model.norm.weight: missing in the second"),
        ("shape", "model.norm.weight: shape"),
        ("vocabulary", "the vocabularies differ"),
        ("duplicate", "twice"),
    ],
)
def test_a_bad_checkpoint_gets_its_own_message_and_leaves_nothing(
    change: str, message: str, trained_run: TrainedRun, tmp_path: Path, capsys: Captured
) -> None:
    good = trained_run.checkpoints[-2]
    bad = spoilt(trained_run.checkpoints[-1], tmp_path / "step-999", change)
    for state in bad.glob("trainer_state.json"):
        state.write_text(json.dumps({"global_step": 999}))
    out = tmp_path / "out" / "merged"
    code = run(["merge", str(good), str(bad), "--weights", "0.5,0.5", "--out", str(out)])
    said = capsys.readouterr().err
    assert code == 1
    assert message in said
    assert "Traceback" not in said
    assert not out.parent.exists() or not list(out.parent.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["merge", "A", "B", "--weights", "0.5,0.6", "--out", "x"], 2, "sum to 1"),
        (["merge", "A", "B", "--weights", "a,b", "--out", "x"], 2, "separated by commas"),
        (["merge", "A", "B", "--weights", "1.0", "--out", "x"], 1, "1 weights for 2"),
        (["merge", "A", "nowhere", "--weights", "0.5,0.5", "--out", "x"], 1, "nowhere"),
        (["merge", "A", "B", "--out", "x"], 2, "--weights"),
        (["evaluate", "A", "--held-out", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["evaluate", "A", "--held-out", "H", "--split", "half"], 2, "certify"),
        (["optimize", "A", "--held-out", "H", "--out", "x"], 1, "at least two"),
        (["optimize", "A", "B", "--held-out", "H", "--out", "x", "--budget", "2"], 1, "budget"),
        (["fly"], 2, "fly"),
    ],
)
def test_misuse_and_refusal_have_their_own_exit_codes(
    arguments: list[str],
    code: int,
    message: str,
    *,
    trained_run: TrainedRun,
    held_out: Path,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {
        "A": str(trained_run.checkpoints[-2]),
        "B": str(trained_run.checkpoints[-1]),
        "H": str(held_out),
    }
    assert run([named.get(argument, argument) for argument in arguments]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_refusal_is_json_too(tmp_path: Path, capsys: Captured) -> None:
    assert run(["inspect", str(tmp_path / "nowhere"), "--json"]) == 1
    problem = answer(capsys)["problem"]
    assert problem["type"] == "CheckpointFormat"
    assert "nowhere" in problem["detail"]


def test_the_installed_command_runs(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("ckptmerge")
    done = subprocess.run(
        [command, "inspect", tmp_path], capture_output=True, text=True, check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("ckptmerge: ")
