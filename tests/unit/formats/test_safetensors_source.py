"""Reading by tensor name, whatever the shards look like, and noticing files that change."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckptmerge.errors import CheckpointFormatError, TruncatedFileError
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.formats.tensors import as_bytes

TENSORS = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)}
CUTS = [
    {"a": "1.safetensors", "b": "2.safetensors"},
    {"a": "2.safetensors", "b": "2.safetensors"},
]


@pytest.fixture
def file(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_two_cuts_of_one_model_read_alike(tmp_path):
    for cut, homes in enumerate(CUTS):
        folder = tmp_path / str(cut)
        folder.mkdir()
        for home in set(homes.values()):
            save_file({n: TENSORS[n] for n in homes if homes[n] == home}, folder / home)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
        with open_checkpoint(folder) as source:
            assert list(source.specs) == ["a", "b"]
            assert all(torch.equal(source.read(name), TENSORS[name]) for name in TENSORS)


def test_what_was_read_outlives_the_source(file):
    with open_checkpoint(file) as source:
        tensor = source.read("a")
    assert torch.equal(tensor, TENSORS["a"])
    with pytest.raises(KeyError):
        source.read("a")


def test_reading_past_a_tensors_end_is_refused(file):
    with open_checkpoint(file) as source, pytest.raises(ValueError, match="no bytes 4 to 12"):
        source.read_into("b", 4, memoryview(bytearray(8)))


def test_a_file_cut_short_while_open_raises_and_does_not_kill(file):
    with open_checkpoint(file) as source:
        os.truncate(file, file.stat().st_size - 4)
        with pytest.raises(TruncatedFileError, match="4 bytes too early"):
            [source.read(name) for name in source.specs]


def test_a_file_written_to_meanwhile_is_noticed(file):
    with open_checkpoint(file) as source:
        source.require_unchanged()
        status = file.stat()
        with file.open("r+b") as opened:
            opened.seek(-1, os.SEEK_END)
            opened.write(b"\x01")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(CheckpointFormatError, match="written to while"):
            source.require_unchanged()


def test_a_file_replaced_meanwhile_is_read_as_it_was(file):
    with open_checkpoint(file) as source:
        save_file({name: tensor + 1 for name, tensor in TENSORS.items()}, file.with_name("new"))
        file.with_name("new").replace(file)
        assert torch.equal(source.read("a"), TENSORS["a"])
        source.require_unchanged()


def test_no_descriptor_is_left_open(file, tmp_path):
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    with open_checkpoint(file):
        assert count() == before + 1
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(TruncatedFileError):
        open_checkpoint(tmp_path)
    assert count() == before


def test_bytes_are_shared_with_their_tensor():
    tensor = torch.zeros(2, dtype=torch.bfloat16)
    as_bytes(tensor)[:] = torch.ones(2, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    assert tensor.tolist() == [1.0, 1.0]
