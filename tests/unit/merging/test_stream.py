"""The streamed merge: the right bytes, wherever they lie, and the recipe that rebuilds them."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ckptmerge.domain.checkpoint import Manifest
from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.weights import GroupedWeights, MergeWeights, WeightGroup
from ckptmerge.errors import (
    InvalidInputError,
    InvalidWeightsError,
    NonFiniteTensorError,
    TruncatedFileError,
)
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.formats.tensors import MemorySink, MemorySource
from ckptmerge.merging import stream as stream_module
from ckptmerge.merging.combine import combine
from ckptmerge.merging.policy import plan_tensors
from ckptmerge.merging.stream import merge, stream


def identified(folder):
    """The manifest of a folder as its writer knows it: files by digest, tensors by header."""
    return Manifest(read_manifest(folder).files, read_manifest(folder, digests=False).tensors)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def checkpoint(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "embed": normal(40, 16).bfloat16(),
        "layers.0.w": normal(16, 16),
        "layers.1.w": normal(16, 16).half(),
        "norm": normal(16).double(),
        "scale": normal(()),
        "empty": torch.zeros(0, 4),
        "steps": torch.tensor([seed, 10 * seed]),
        "mask": torch.tensor([True, seed % 2 == 0]),
    }


@pytest.fixture
def paths(tmp_path):
    folders = []
    for seed in (1, 2, 3):
        folder = tmp_path / f"step-{seed}"
        folder.mkdir()
        save_file(checkpoint(seed), folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text('{"dtype": "float32"}')
        folders.append(folder)
    return folders


def recipe_of(paths, weights, **kwargs):
    return Recipe(tuple(read_manifest(path).content for path in paths), weights, **kwargs)


def run(paths, recipe, out, **kwargs):
    opened = [open_checkpoint(path) for path in paths]
    try:
        return merge(opened, recipe, out, side_files=paths[-1], **kwargs)
    finally:
        for source in opened:
            source.close()


def expected(weights: MergeWeights, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    inputs = [checkpoint(seed) for seed in (1, 2, 3)]
    merged = {}
    for name, newest in inputs[-1].items():
        if newest.is_floating_point():
            merged[name] = torch.empty_like(newest, dtype=dtype or newest.dtype)
            flat = [tensors[name].reshape(-1) for tensors in inputs]
            combine(flat, weights, out=merged[name].view(-1))
        else:
            merged[name] = newest
    return merged


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


W = MergeWeights.of(0.2, -0.1, 0.9)


def test_floats_are_averaged_and_the_rest_comes_from_the_newest(paths, tmp_path):
    artifact = run(paths, recipe_of(paths, W), tmp_path / "out")
    same(load_file(tmp_path / "out" / "model.safetensors"), expected(W))
    assert artifact.manifest == identified(tmp_path / "out")


def test_a_vertex_returns_the_checkpoint_bit_for_bit(paths, tmp_path):
    for index in range(3):
        recipe = recipe_of(paths, MergeWeights.vertex(3, index))
        run(paths, recipe, tmp_path / f"out{index}")
        wanted = {e.spec.name: e.digest for e in read_manifest(paths[index]).tensors}
        found = {e.spec.name: e.digest for e in read_manifest(tmp_path / f"out{index}").tensors}
        for name in wanted.keys() - {"steps", "mask"}:
            assert found[name] == wanted[name]


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"),
    [("bf16", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)],
)
def test_the_output_takes_the_dtype_asked_for_and_the_config_says_so(
    paths, tmp_path, dtype, torch_dtype
):
    run(paths, recipe_of(paths, W, dtype=dtype), tmp_path / "out")
    same(load_file(tmp_path / "out" / "model.safetensors"), expected(W, torch_dtype))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"dtype": str(torch_dtype).removeprefix("torch.")}


def test_the_same_recipe_gives_the_same_files_from_other_shards(paths, tmp_path):
    recipe = recipe_of(paths, W, shard_size=1000)
    first = run(paths, recipe, tmp_path / "one")
    resharded = []
    for index, path in enumerate(paths):
        again = Recipe((recipe.parents[index],), MergeWeights.of(1.0), shard_size=200 + 300 * index)
        run([path], again, tmp_path / f"resharded-{index}")
        resharded.append(tmp_path / f"resharded-{index}")
    assert recipe_of(resharded, W, shard_size=1000) == recipe
    assert run(resharded, recipe, tmp_path / "two").digest == first.digest


@pytest.mark.parametrize("block", [4096, 8192])
def test_the_size_of_blocks_and_buffers_changes_nothing(paths, tmp_path, monkeypatch, block):
    recipe = recipe_of(paths, W)
    whole = run(paths, recipe, tmp_path / "whole")
    monkeypatch.setattr(stream_module, "_block_bytes", lambda _: block // 64)
    assert run(paths, recipe, tmp_path / "cut").digest == whole.digest


def test_every_weight_file_carries_the_recipe(paths, tmp_path):
    recipe = recipe_of(paths, W, shard_size=1000)
    run(paths, recipe, tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1
    for file in files:
        with safe_open(file, "pt") as opened:
            assert Recipe.from_metadata(opened.metadata()) == recipe


def test_groups_weigh_their_own_tensors(paths, tmp_path):
    other = MergeWeights.of(1.0, 0.0, 0.0)
    groups = GroupedWeights(
        (WeightGroup("zero", r"layers\.0\..*", other), WeightGroup("r", ".*", W))
    )
    run(paths, recipe_of(paths, groups), tmp_path / "out")
    wanted = expected(W) | {"layers.0.w": expected(other)["layers.0.w"]}
    same(load_file(tmp_path / "out" / "model.safetensors"), wanted)


def test_groups_that_part_tied_tensors_are_refused():
    sources = []
    for index in range(2):
        tied = torch.arange(4.0) + index
        sources.append(MemorySource({"embed": tied, "head": tied}))
    plans = plan_tensors(sources, "keep")
    sink = MemorySink([plan.output for plan in plans.values()])
    groups = GroupedWeights(
        (
            WeightGroup("head", "head", MergeWeights.of(0.0, 1.0)),
            WeightGroup("rest", ".*", MergeWeights.of(0.5, 0.5)),
        )
    )
    with pytest.raises(InvalidWeightsError, match="one tensor stored twice"):
        stream(sources, plans, groups, sink)
    stream(sources, plans, MergeWeights.of(0.5, 0.5), sink)
    assert torch.equal(sink.tensors()["embed"], sink.tensors()["head"])


def test_a_checkpoint_without_weight_is_not_read(paths, tmp_path):
    class Unread(MemorySource):
        def read_into(self, name, *_):
            raise AssertionError(f"{name} was read")

    unread = Unread(checkpoint(1))
    sources = [unread, MemorySource(checkpoint(2)), MemorySource(checkpoint(3))]
    recipe = recipe_of(paths, MergeWeights.of(0.0, 0.4, 0.6))
    merge(sources, recipe, tmp_path / "out", side_files=paths[0])


def test_progress_adds_up_and_files_lie_beside(paths, tmp_path):
    seen: list[int] = []
    artifact = run(
        paths, recipe_of(paths, W), tmp_path / "out",
        on_bytes=seen.append, extra_files={"recipe.json": b"{}"},
    )  # fmt: skip
    assert sum(seen) == artifact.manifest.bytes
    assert (tmp_path / "out" / "recipe.json").read_bytes() == b"{}"
    assert artifact.manifest == identified(tmp_path / "out")


def test_as_many_checkpoints_as_parents(paths, tmp_path):
    with pytest.raises(InvalidInputError, match="3 parents, 2 checkpoints"):
        run(paths[:2], recipe_of(paths, W), tmp_path / "out")


def test_an_overflow_is_not_published(paths, tmp_path):
    for path in paths:
        save_file({"w": torch.full((9,), 60000.0)}, path / "model.safetensors")
    recipe = recipe_of(paths, MergeWeights.of(2.0, -1.5, 0.5), dtype="f16")
    run(paths, recipe, tmp_path / "fits")
    for path, scale in zip(paths, (3, 1, 1), strict=True):
        save_file({"w": torch.full((9,), 60000.0 * scale)}, path / "model.safetensors")
    with pytest.raises(NonFiniteTensorError, match=r"w \(9 numbers\)"):
        run(paths, recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_parent_cut_short_meanwhile_leaves_nothing(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "_block_bytes", lambda _: 64)
    file = paths[1] / "model.safetensors"

    def cut(_count: int) -> None:
        os.truncate(file, 1500)

    with pytest.raises(TruncatedFileError):
        run(paths, recipe_of(paths, W), tmp_path / "out", on_bytes=cut)
    assert names(tmp_path) == ["step-1", "step-2", "step-3"]


def test_a_parent_written_to_meanwhile_leaves_nothing(paths, tmp_path):
    file = paths[0] / "model.safetensors"

    def touch(_count: int) -> None:
        os.utime(file, ns=(0, 0))

    with pytest.raises(InvalidInputError, match="written to while"):
        run(paths, recipe_of(paths, W), tmp_path / "out", on_bytes=touch)
    assert names(tmp_path) == ["step-1", "step-2", "step-3"]


def test_a_single_file_has_no_side_files(paths, tmp_path):
    files = [path / "model.safetensors" for path in paths]
    run(files, recipe_of(files, W), tmp_path / "out")
    assert names(tmp_path / "out") == ["model.safetensors"]


@pytest.mark.parametrize("sources", [1, 2, 8, 100])
def test_memory_for_reading_ahead_does_not_grow_with_the_window(sources):
    block = stream_module._block_bytes(sources)
    assert 0 < block * sources * 3 <= stream_module.READ_AHEAD
    assert block % 64 == 0
