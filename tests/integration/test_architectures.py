"""Models as transformers writes them score in memory as their files do, whatever their kind."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ckptmerge.domain.weights import MergeWeights
from ckptmerge.domain.window import Window
from ckptmerge.errors import ModelLoadError
from ckptmerge.evaluation.documents import Document
from ckptmerge.evaluation.models import load_model
from ckptmerge.evaluation.tokens import Passage, TokenizedSet
from ckptmerge.workflow.assess import WindowEvaluator, score_files
from ckptmerge.workflow.materialise import materialise
from ckptmerge.workflow.register import register_in_order

CPU = torch.device("cpu")
SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "max_position_embeddings": 32}


def llama(*, tied: bool) -> PreTrainedModel:
    config = LlamaConfig(**SMALL, **HEADS, num_key_value_heads=2, tie_word_embeddings=tied)
    return LlamaForCausalLM(config)


def qwen2() -> PreTrainedModel:
    config = Qwen2Config(**SMALL, **HEADS, num_key_value_heads=2, tie_word_embeddings=True)
    return Qwen2ForCausalLM(config)


def gpt_neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, **HEADS, tie_word_embeddings=False))


def mixtral() -> PreTrainedModel:
    config = MixtralConfig(**SMALL, **HEADS, num_key_value_heads=2, num_local_experts=4)
    return MixtralForCausalLM(config)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama tied": lambda: llama(tied=True),
    "llama untied": lambda: llama(tied=False),
    "qwen2 tied": qwen2,
    "gpt-neox": gpt_neox,
    "mixtral": mixtral,
}


def write_pair(
    make: Callable[[], PreTrainedModel],
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    shard: str = "5GB",
) -> list[Path]:
    """Write two checkpoints that differ a little, the second one sharded otherwise."""
    torch.manual_seed(0)
    model = make()
    paths = []
    for step in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        path = folder / f"step-{step}"
        model.to(dtype).save_pretrained(path, max_shard_size=shard if step == 2 else "5GB")
        model.to(torch.float32)
        paths.append(path)
    return paths


def documents() -> TokenizedSet:
    generator = torch.Generator().manual_seed(1)
    passages = tuple(
        Passage(i, tuple(torch.randint(64, (length,), generator=generator).tolist()))
        for i, length in enumerate((31, 2, 17, 32, 9))
    )
    texts = tuple(Document(ids=p.ids, domain="random") for p in passages)
    sizes = tuple(len(p.ids) - 1 for p in passages)
    return TokenizedSet(texts, passages, sizes, sizes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_candidate_in_memory_is_what_its_files_are(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    paths = write_pair(MODELS[name], tmp_path, dtype=dtype)
    evaluator = WindowEvaluator(paths, device=CPU)
    window = Window(register_in_order(paths))
    weights = MergeWeights.of(0.3, 0.7)
    materialise(window, weights, tmp_path / "merged")
    assert evaluator.check_load(weights, tmp_path / "merged", documents()) <= 1e-4
    newest = MergeWeights.vertex(2, -1)
    assert evaluator.check_load(newest, paths[-1], documents()) <= 1e-4
    before = evaluator.score(newest, documents()).nats
    after = evaluator.score(weights, documents()).nats
    assert (before != after).all(), "forming another candidate must change the model"


def test_a_renamed_head_is_bound_without_rebuilding_the_model(tmp_path: Path) -> None:
    paths = write_pair(gpt_neox, tmp_path)
    evaluator = WindowEvaluator(paths, device=CPU)
    assert evaluator.shares_memory


def test_rounding_to_the_output_dtype_shows_in_the_score(tmp_path: Path) -> None:
    paths = write_pair(lambda: llama(tied=True), tmp_path)
    exact = WindowEvaluator(paths, device=CPU)
    rounded = WindowEvaluator(paths, device=CPU, dtype="bf16")
    assert rounded.shares_memory, "rounded parameters are still found by their values"
    weights = MergeWeights.of(0.5, 0.5)
    window = Window(register_in_order(paths))
    materialise(window, weights, tmp_path / "bf16", dtype="bf16")
    assert rounded.check_load(weights, tmp_path / "bf16", documents()) <= 1e-6
    assert (
        exact.score(weights, documents()).nats != rounded.score(weights, documents()).nats
    ).any()


def test_shards_may_differ_between_checkpoints(tmp_path: Path) -> None:
    paths = write_pair(lambda: llama(tied=False), tmp_path, shard="20KB")
    assert len(list(paths[1].glob("*.safetensors"))) > 2
    weights = MergeWeights.of(0.5, 0.5)
    materialise(Window(register_in_order(paths)), weights, tmp_path / "merged")
    score = WindowEvaluator(paths, device=CPU).score(weights, documents())
    files = score_files(tmp_path / "merged", documents(), device=CPU)
    assert abs(score.nats - files.nats).max() < 1e-4


def test_a_checkpoint_with_a_missing_tensor_is_not_scored(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = write_pair(lambda: llama(tied=True), tmp_path)[0] / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"model\.norm\.weight"):
        load_model(path.parent, device=CPU)


def test_weights_without_a_config_are_refused(tmp_path: Path) -> None:
    path = write_pair(lambda: llama(tied=True), tmp_path)[0]
    (path / "config.json").unlink()
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        load_model(path, device=CPU)
    (path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ModelLoadError, match="cannot build"):
        load_model(path, device=CPU)


def test_bytes_that_are_not_the_candidate_are_noticed(tmp_path: Path) -> None:
    paths = write_pair(lambda: llama(tied=True), tmp_path)
    evaluator = WindowEvaluator(paths, device=CPU)
    with pytest.raises(ModelLoadError, match="differ by"):
        evaluator.check_load(MergeWeights.vertex(2, 0), paths[1], documents())


def test_batching_in_another_order_changes_rounding_alone(tmp_path: Path) -> None:
    paths = write_pair(lambda: llama(tied=True), tmp_path)
    evaluator = WindowEvaluator(paths, device=CPU)
    newest = MergeWeights.vertex(2, -1)
    one = evaluator.score(newest, documents())
    other = evaluator.score(newest, documents(), reverse=True)
    assert abs(one.nats - other.nats).max() < 1e-3
