"""The main job on a really trained run: searched, written, certified, and honest when it cannot."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TrainedRun
from transformers import AutoModelForCausalLM, AutoTokenizer

import ckptmerge
from ckptmerge.domain.observation import Split
from ckptmerge.domain.recipe import Recipe
from ckptmerge.errors import (
    BarrierError,
    HeldOutSetError,
    InvalidInputError,
    OutputExistsError,
    RefusedError,
    TokenizerError,
)
from ckptmerge.evaluation.documents import load_held_out
from ckptmerge.formats.header import read_header
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.workflow.evaluate import evaluate
from ckptmerge.workflow.outcome import OptimizedStudy

WINDOW = 4
BUDGET = 12
DOCUMENTS = 120
"""A domain; enough for thirty independent ones in the certify split, in a third of the time."""


@pytest.fixture(scope="session")
def documents(trained_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the held-out documents, in a file whose log of looks belongs to this session."""
    copy = tmp_path_factory.mktemp("documents") / "held-out.jsonl"
    left = Counter(dict.fromkeys(("reference", "docstrings", "code"), DOCUMENTS))
    with copy.open("w") as file:
        for line in trained_run.held_out.read_text().splitlines():
            domain = json.loads(line)["domain"]
            if left[domain] > 0:
                left[domain] -= 1
                file.write(line + "\n")
    return copy


@pytest.fixture(scope="session")
def study(trained_run: TrainedRun, documents: Path) -> OptimizedStudy:
    return ckptmerge.optimize(
        trained_run.checkpoints[-WINDOW:], held_out=documents, budget=BUDGET, run="fixture"
    )


@pytest.fixture(scope="session")
def merged(study: OptimizedStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study.publish(tmp_path_factory.mktemp("published") / "merged")


def plain_bits_per_byte(folder: Path, held_out: Path) -> float:
    """Score a model one passage at a time, with nothing of ours but the split."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    context = model.config.max_position_embeddings
    sums: dict[str, list[float]] = {}
    for document in load_held_out(held_out).split(Split.AUDIT):
        total = sums.setdefault(document.domain, [0.0, 0.0])
        ids = tokenizer(document.text)["input_ids"]
        for start in range(0, len(ids), context):
            part = torch.tensor([ids[start : start + context]])
            if part.shape[1] < 2:
                continue
            with torch.no_grad():
                logp = model(input_ids=part).logits[0, :-1].double().log_softmax(-1)
            total[0] -= logp.gather(1, part[0, 1:, None]).sum().item()
            total[1] += len(tokenizer.decode(part[0, 1:]).encode())
    return float(np.mean([nats / math.log(2) / size for nats, size in sums.values()]))


def test_merging_a_real_run_is_promoted_and_the_audit_confirms_it(study: OptimizedStudy) -> None:
    assert study.promoted
    assert study.certificate is not None
    assert study.certificate.passed
    gain = study.audit.gains[0]
    assert gain.against == "newest"
    assert gain.split is Split.AUDIT
    assert gain.interval.low > 0
    best_uniform = min(
        score.interval.mean
        for name, score in study.audit.baselines.items()
        if name.startswith("uniform-")
    )
    assert study.audit.score.interval.mean <= best_uniform + 0.005


def test_the_search_never_ends_below_its_own_design(study: OptimizedStudy) -> None:
    values = [t.observation.value for t in study.study.observed if t.observation is not None]
    assert study.incumbent.observation is not None
    assert study.incumbent.observation.value <= min(values) + 1e-6
    assert len(study.study.trials) <= BUDGET
    assert study.passes["search"] == len(study.study.trials) + 1


def test_the_published_bytes_are_the_certified_bytes(study: OptimizedStudy, merged: Path) -> None:
    assert study.decision.artifact is not None
    manifest = read_manifest(merged)
    assert manifest.digest == study.decision.artifact.digest
    assert study.certificate is not None
    assert study.certificate.artifact == manifest.digest


def test_the_file_carries_the_recipe_that_rebuilds_it(merged: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_metadata(read_header(merged / "model.safetensors").metadata)
    assert recipe is not None
    answer = json.loads((merged / "recipe.json").read_text())
    assert Recipe.from_json(answer["recipe"]) == recipe
    parents = [weight["checkpoint"] for weight in answer["best"]["weights"]]
    values = [weight["weight"] for weight in answer["best"]["weights"]]
    again = ckptmerge.merge(parents, values, tmp_path / "again")
    first, second = merged / "model.safetensors", tmp_path / "again" / "model.safetensors"
    assert len(parents) == WINDOW, "parents of weight zero are part of the recipe"
    assert again.recipe == recipe
    assert first.read_bytes() == second.read_bytes()


def test_scores_agree_with_a_plain_reading_of_the_definition(
    trained_run: TrainedRun, documents: Path, merged: Path, study: OptimizedStudy
) -> None:
    newest = trained_run.checkpoints[-1]
    ours = evaluate(newest, documents, split=Split.AUDIT).interval.mean
    assert ours == pytest.approx(plain_bits_per_byte(newest, documents), abs=1e-4)
    assert study.audit.score.interval.mean == pytest.approx(
        plain_bits_per_byte(merged, documents), abs=1e-4
    )


def test_the_same_seed_gives_the_same_bytes_in_whatever_order_checkpoints_are_named(
    trained_run: TrainedRun, documents: Path, study: OptimizedStudy
) -> None:
    shuffled = [trained_run.checkpoints[-i] for i in (2, 4, 1, 3)]
    again = ckptmerge.optimize(shuffled, held_out=documents, budget=BUDGET, run="fixture")
    assert again.incumbent.weights == study.incumbent.weights
    assert again.decision.artifact == study.decision.artifact
    assert again.certificate == study.certificate, "the same test keeps its number"


def test_candidates_of_bf16_checkpoints_are_scored_as_they_are_written(
    trained_run: TrainedRun, documents: Path, tmp_path: Path
) -> None:
    study = ckptmerge.optimize(
        trained_run.bf16[-2:], held_out=documents, space="pair", budget=6, run="bf16"
    )
    assert study.promoted
    folder = study.publish(tmp_path / "merged")
    specs = [entry.spec for entry in read_manifest(folder).tensors]
    assert {spec.dtype for spec in specs} == {"BF16"}
    assert study.incumbent.observation is not None
    scored = evaluate(folder, documents, split=Split.SEARCH).interval.mean
    assert scored == pytest.approx(study.incumbent.observation.value, abs=1e-5)


def searched_gain(study: OptimizedStudy) -> float:
    """Return how far below the newest checkpoint the winner lies on the search split."""
    newest, winner = study.study.named("newest"), study.incumbent
    assert newest is not None
    assert newest.observation is not None
    assert winner.observation is not None
    return newest.observation.value - winner.observation.value


def test_an_annealed_run_has_almost_nothing_left_to_gain(
    study: OptimizedStudy, cosine_run: TrainedRun, tmp_path: Path
) -> None:
    annealed = ckptmerge.optimize(
        cosine_run.checkpoints[-WINDOW:],
        held_out=cosine_run.held_out,
        budget=BUDGET,
        looks=tmp_path / "looks.jsonl",
    )
    assert searched_gain(annealed) < searched_gain(study) / 5
    assert annealed.promoted == (annealed.best().kind == "merge")
    # A tiny gain may be real; what must not be is a promotion that the audit contradicts.
    assert all(gain.interval.high > 0 for gain in annealed.audit.gains)


def test_two_unrelated_runs_do_not_merge(
    trained_run: TrainedRun, other_run: TrainedRun, documents: Path, tmp_path: Path
) -> None:
    one, other = tmp_path / "step-1", tmp_path / "step-2"
    shutil.copytree(trained_run.checkpoints[-1], one)
    shutil.copytree(other_run.checkpoints[-1], other)
    for folder, step in ((one, 1), (other, 2)):
        for state in folder.glob("trainer_state.json"):
            state.write_text(json.dumps({"global_step": step}))
    for paths in ([one, other], [one, trained_run.checkpoints[-2], other]):
        if len(paths) == 3:
            paths[1] = tmp_path / "step-1-5"
            shutil.copytree(trained_run.checkpoints[-2], paths[1])
            (paths[1] / "trainer_state.json").write_text(json.dumps({"global_step": 1}))
            (one / "trainer_state.json").write_text(json.dumps({"global_step": 0}))
        with pytest.raises(BarrierError, match="these do not merge: barrier"):
            ckptmerge.optimize(paths, held_out=documents, budget=BUDGET)


def test_a_published_folder_is_never_overwritten(study: OptimizedStudy, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError):
        study.publish(tmp_path)


def test_held_out_sets_that_cannot_judge_are_refused(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    pair = trained_run.checkpoints[-2:]
    cases = {
        "": "is empty",
        '{"text": "one document alone"}\n': "1 document",
        "not json\n": "line 1",
        '{"domain": "code"}\n{"text": "b"}\n': "'text' or 'ids'",
    }
    for number, (content, message) in enumerate(cases.items()):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(content)
        with pytest.raises(HeldOutSetError, match=message):
            ckptmerge.optimize(pair, held_out=file, space="pair")


def test_ids_of_another_vocabulary_are_refused(trained_run: TrainedRun, tmp_path: Path) -> None:
    file = tmp_path / "ids.jsonl"
    rows = [{"ids": [1, 2, i]} for i in range(100)] + [{"ids": [1, 99_999]}]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(HeldOutSetError, match="99999 does not exist"):
        evaluate(trained_run.checkpoints[-1], file)


def test_text_and_the_ids_it_becomes_score_alike(trained_run: TrainedRun, tmp_path: Path) -> None:
    newest = trained_run.checkpoints[-1]
    tokenizer = AutoTokenizer.from_pretrained(newest)
    texts = [f"def function_{i}(value):\n    return value + {i}\n" for i in range(20)]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    rows = [{"ids": tokenizer(t)["input_ids"]} for t in texts]
    (tmp_path / "ids.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one, other = (evaluate(newest, tmp_path / f"{k}.jsonl").interval.mean for k in ("text", "ids"))
    assert one == pytest.approx(other, abs=1e-9)


def test_a_missing_or_spoilt_tokenizer_is_named(
    trained_run: TrainedRun, documents: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "step-1"
    shutil.copytree(trained_run.checkpoints[-1], folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"step-1"):
        evaluate(folder, documents)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="--tokenizer"):
        evaluate(folder, documents)
    borrowed = evaluate(folder, documents, tokenizer=trained_run.checkpoints[-1])
    assert borrowed.interval.mean > 0


def test_one_domain_is_enough(trained_run: TrainedRun, tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    rows = [json.loads(line) for line in trained_run.held_out.read_text().splitlines()]
    kept = [row for row in rows if row["domain"] == "reference"]
    file.write_text("\n".join(map(json.dumps, kept)))
    study = ckptmerge.optimize(
        trained_run.checkpoints[-2:], held_out=file, space="pair", budget=5, run="one"
    )
    assert set(study.audit.score.domains) == {"reference"}
    assert study.promoted


def test_too_few_documents_promote_nothing(trained_run: TrainedRun, tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    rows = [json.loads(line) for line in trained_run.held_out.read_text().splitlines()]
    kept = [row for row in rows if row["domain"] == "reference"][:40]
    file.write_text("\n".join(map(json.dumps, kept)))
    study = ckptmerge.optimize(
        trained_run.checkpoints[-2:], held_out=file, space="pair", budget=5, run="few"
    )
    assert not study.promoted
    assert "too few" in study.decision.reason
    assert study.best().kind == "checkpoint"
    with pytest.raises(RefusedError, match="too few"):
        study.publish(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_objective_that_names_an_unknown_domain_is_refused(
    trained_run: TrainedRun, documents: Path
) -> None:
    from ckptmerge.domain.observation import Objective

    with pytest.raises(InvalidInputError, match="poetry"):
        ckptmerge.optimize(
            trained_run.checkpoints[-2:],
            held_out=documents,
            space="pair",
            objective=Objective(domain_weights={"poetry": 1.0}),
        )
