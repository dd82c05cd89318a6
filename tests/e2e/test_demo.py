"""The demo, on a shorter run: it ends well, and would not if something it says did not hold."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ckptmerge.cli.main import run
from ckptmerge.wire.best import Best
from service import demo


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, run(["demo", "--out", str(out), "--steps", "180"])


def test_the_demo_trains_merges_certifies_and_verifies_itself(finished: tuple[Path, int]) -> None:
    out, code = finished
    assert code == 0
    assert len(list((out / "run").glob("step-*"))) == 12
    assert (out / "held-out.jsonl").is_file()
    assert (out / "merged" / "recipe.json").is_file(), "a constant-rate run gains by merging"


def test_the_demo_fails_when_its_bytes_are_not_what_it_said(finished: tuple[Path, int]) -> None:
    out, _ = finished
    answer = json.loads((out / "merged" / "recipe.json").read_text())["best"]
    best = Best.model_validate(answer)
    checkpoints = tuple(sorted((out / "run").glob("step-*")))
    left = demo._Run(checkpoints, out / "held-out.jsonl", "constant")
    demo._verify(best, left, out / "merged")
    file = out / "merged" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] *= 1.01
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(demo.DemoFailedError, match="digest"):
        demo._verify(best, left, out / "merged")


def test_the_demo_never_clears_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    assert run(["demo", "--out", str(tmp_path)]) == 1
    assert (tmp_path / "precious").exists()


def test_the_demo_fails_when_the_audit_contradicts_the_certificate(
    finished: tuple[Path, int],
) -> None:
    out, _ = finished
    answer = json.loads((out / "merged" / "recipe.json").read_text())["best"]
    answer["gains"][0] |= {"mean": -0.001, "low": -0.002, "high": 0.001}
    with pytest.raises(demo.DemoFailedError, match="audit split"):
        demo._require_confirmed(Best.model_validate(answer))
