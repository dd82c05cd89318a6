"""Manifests: which files make a model, their digests, and what is refused."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import CheckpointFormatError, NonFiniteTensorError, TruncatedFileError
from ckptmerge.formats import inspection
from ckptmerge.formats.inspection import count_non_finite
from ckptmerge.formats.manifest import read_manifest

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.ones(5, dtype=torch.bfloat16),
    "count": torch.tensor([3, 4]),
    "empty": torch.zeros(0, 4),
}


def sha(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def shard(folder, homes):
    """Write TENSORS into the files that ``homes`` names, with an index."""
    for file in set(homes.values()):
        save_file({n: TENSORS[n] for n, home in homes.items() if home == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def folder(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "modeling.py").write_text("import os")
    (tmp_path / "optimizer.pt").write_bytes(b"PK")
    return tmp_path


def test_files_and_tensors_carry_the_digests_of_their_bytes(folder):
    manifest = read_manifest(folder)
    assert {f.name: (f.size, f.digest) for f in manifest.files} == {
        name: ((folder / name).stat().st_size, sha((folder / name).read_bytes()))
        for name in ("config.json", "model.safetensors")
    }
    assert {e.spec.name: e.digest for e in manifest.tensors} == {
        name: sha(bytes_of(tensor)) for name, tensor in TENSORS.items()
    }


def test_digests_do_not_depend_on_how_the_file_is_cut_into_blocks(folder, monkeypatch):
    whole = read_manifest(folder)
    monkeypatch.setattr("ckptmerge.formats.manifest.BLOCK", 8)
    assert read_manifest(folder) == whole


def test_without_digests_only_headers_are_read(folder):
    manifest = read_manifest(folder, digests=False)
    assert manifest.files == ()
    assert all(entry.digest is None for entry in manifest.tensors)
    assert manifest.signature == read_manifest(folder).signature


def test_progress_adds_up_to_the_tensors_bytes(folder):
    seen: list[int] = []
    manifest = read_manifest(folder, on_bytes=seen.append)
    assert sum(seen) == manifest.bytes


def test_one_file_is_a_checkpoint_of_its_own(folder):
    manifest = read_manifest(folder / "model.safetensors")
    assert [file.name for file in manifest.files] == ["model.safetensors"]
    assert manifest.content == read_manifest(folder).content


def test_the_content_digest_does_not_depend_on_sharding(folder, tmp_path):
    other = tmp_path / "sharded"
    other.mkdir()
    shard(other, {"a": "2.safetensors", "b": "1.safetensors", "count": "1.safetensors",
                  "empty": "2.safetensors"})  # fmt: skip
    manifest = read_manifest(other)
    assert manifest.content == read_manifest(folder).content
    assert manifest.digest != read_manifest(folder).digest
    assert "model.safetensors.index.json" in {file.name for file in manifest.files}


def test_a_sole_file_of_another_name_is_the_model(tmp_path):
    save_file(TENSORS, tmp_path / "weights.safetensors")
    (tmp_path / ".hidden.safetensors").write_bytes(b"")
    assert len(read_manifest(tmp_path).tensors) == len(TENSORS)


@pytest.mark.parametrize(
    ("homes", "reason"),
    [
        ({"a": "1.safetensors", "b": "2.safetensors"}, "no safetensors file of this folder"),
        ({"a": "../1.safetensors"}, "no safetensors file of this folder"),
        ({"a": "/etc/passwd"}, "no safetensors file of this folder"),
        ({"a": ["1.safetensors"]}, "no safetensors file of this folder"),
        ({"a": "1.safetensors", "x": "1.safetensors"}, "tensor 'x'"),
        ({}, "no weight_map"),
        (None, "no weight_map"),
    ],
)
def test_an_index_that_disagrees_with_the_shards_is_refused(tmp_path, homes, reason):
    save_file({"a": TENSORS["a"]}, tmp_path / "1.safetensors")
    save_file({"a": TENSORS["a"]}, tmp_path.parent / "1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    with pytest.raises(CheckpointFormatError) as refused:
        read_manifest(tmp_path)
    assert reason in str(refused.value)


def test_an_index_with_a_name_twice_is_refused(tmp_path):
    save_file({"a": TENSORS["a"]}, tmp_path / "1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "2.safetensors", "a": "1.safetensors"}}'
    )
    with pytest.raises(CheckpointFormatError, match="stands twice"):
        read_manifest(tmp_path)


def test_a_tensor_in_the_wrong_shard_or_in_two_is_refused(tmp_path):
    shard(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    save_file({"b": TENSORS["b"], "a": TENSORS["a"]}, tmp_path / "2.safetensors")
    with pytest.raises(CheckpointFormatError, match=r"'a' stands in 1\.safe.* and in 2\.safe"):
        read_manifest(tmp_path)
    save_file({"count": TENSORS["count"]}, tmp_path / "1.safetensors")
    with pytest.raises(CheckpointFormatError, match="copy them again"):
        read_manifest(tmp_path)


def test_a_tensor_the_index_leaves_out_is_refused(tmp_path):
    shard(tmp_path, {"a": "1.safetensors"})
    save_file({"a": TENSORS["a"], "b": TENSORS["b"]}, tmp_path / "1.safetensors")
    with pytest.raises(CheckpointFormatError, match="tensor 'b' into no file"):
        read_manifest(tmp_path)


def test_safetensors_files_without_an_index_are_refused(tmp_path):
    save_file(TENSORS, tmp_path / "one.safetensors")
    save_file(TENSORS, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointFormatError, match="2 safetensors files and no"):
        read_manifest(tmp_path)


def test_a_folder_of_pickles_is_told_what_to_do(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointFormatError, match=r"only pytorch_model.bin; save the model as"):
        read_manifest(tmp_path)


def test_nothing_there_is_said_plainly(tmp_path):
    with pytest.raises(CheckpointFormatError, match="holds no safetensors file"):
        read_manifest(tmp_path)
    with pytest.raises(CheckpointFormatError, match="does not exist"):
        read_manifest(tmp_path / "nowhere")
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointFormatError, match="holds no tensors"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused_by_name_and_count(tmp_path, dtype, bad):
    tensor = torch.ones(1000, dtype=dtype)
    tensor[[7, 999]] = bad
    save_file({"fine": torch.ones(3), "layer.norm": tensor}, tmp_path / "model.safetensors")
    with pytest.raises(NonFiniteTensorError, match=r"model\.safetensors.*layer\.norm \(2 numbers"):
        read_manifest(tmp_path)
    read_manifest(tmp_path, digests=False)


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16"])
def test_the_largest_and_smallest_finite_numbers_are_finite(name):
    dtype = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16,
             "BF16": torch.bfloat16}[name]  # fmt: skip
    edges = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min, 0.0, -0.0], dtype=dtype)
    tiny = torch.tensor([1], dtype=torch.int64).view(dtype)
    assert count_non_finite(memoryview(bytes_of(torch.cat([edges, tiny]))), name) == 0


def test_the_scan_counts_across_its_blocks(monkeypatch):
    monkeypatch.setattr(inspection, "_SCANNED_AT_ONCE", 3)
    numbers = np.array([1, np.nan, 2, 3, 4, 5, np.inf, 6], dtype="<f4")
    assert count_non_finite(memoryview(numbers.tobytes()), "F32") == 2
    assert count_non_finite(memoryview(b"\xff" * 8), "I64") == 0


def test_a_file_cut_short_is_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-3])
    with pytest.raises(TruncatedFileError, match="3 are missing"):
        read_manifest(folder)


def test_what_the_library_reads_is_what_was_digested(folder):
    digests = {e.spec.name: e.digest for e in read_manifest(folder).tensors}
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert digests[name] == sha(bytes_of(tensor))


def test_manifests_need_no_torch():
    code = "import ckptmerge.formats.manifest, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
