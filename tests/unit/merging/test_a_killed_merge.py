"""A merge that is killed leaves a complete model or nothing that looks like one."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.merging.stream import merge

# Forks one child for each moment; the child kills itself there, as a scheduler or the kernel would.
KILLER = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.merging import stream

stream._block_bytes = lambda sources: 4096
root = Path(sys.argv[1])
parents = tuple(read_manifest(root / name).content for name in "ab")
recipe = Recipe(parents, MergeWeights.of(0.4, 0.6), shard_size=40_000)

def kill_at(module, name, when, after):
    real, calls = getattr(module, name), [0]
    def wrapped(*args, **kwargs):
        calls[0] += 1
        if calls[0] == when and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if calls[0] == when and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(module, name, wrapped)

def child(moment, out):
    name, when, after = moment
    kill_at({"fsync": os, "write": os}.get(name, Path), name, when, after)
    with open_checkpoint(root / "a") as a, open_checkpoint(root / "b") as b:
        stream.merge([a, b], recipe, out, side_files=root / "a")

moments = [("write", n, False) for n in (1, 2, 7)]
moments += [("fsync", n, False) for n in range(1, 7)]
moments += [("rename", n, after) for n in range(1, 4) for after in (False, True)]
for index, moment in enumerate(moments):
    out = root / "runs" / str(index) / "merged"
    pid = os.fork()
    if pid == 0:
        try:
            child(moment, out)
        finally:
            os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        sys.exit(f"moment {moment} was never reached")
print(len(moments))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    root = tmp_path_factory.mktemp("killed")
    for index, name in enumerate("ab"):
        (root / name).mkdir()
        tensors = {f"w{i}": torch.full((50, 60), float(index + i)) for i in range(4)}
        save_file(tensors, root / name / "model.safetensors")
        (root / name / "config.json").write_text("{}")
    ran = subprocess.run(
        [sys.executable, "-c", KILLER, str(root)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) == 15
    return root


def again(root, out):
    parents = tuple(read_manifest(root / name).content for name in "ab")
    recipe = Recipe(parents, MergeWeights.of(0.4, 0.6), shard_size=40_000)
    with open_checkpoint(root / "a") as a, open_checkpoint(root / "b") as b:
        return merge([a, b], recipe, out, side_files=root / "a")


def test_under_the_final_name_there_is_all_or_nothing(killed, tmp_path):
    whole = again(killed, tmp_path / "whole").manifest
    states = set()
    for run in (killed / "runs").iterdir():
        if (run / "merged").exists():
            assert read_manifest(run / "merged").files == whole.files
            states.add("whole")
        else:
            states.add("nothing")
    assert states == {"whole", "nothing"}, "the moments missed one side of the last rename"


def test_what_is_left_is_hidden_and_looks_like_no_model(killed):
    """Before the last renames a leftover has no weights; after them it is whole, and hidden."""
    unfinished = 0
    for run in (killed / "runs").iterdir():
        for left in run.iterdir():
            if left.name == "merged":
                continue
            assert left.name.startswith(".merged.partial-")
            if any(path.name.endswith(".incomplete") for path in left.iterdir()):
                unfinished += 1
                with pytest.raises(CheckpointFormatError):
                    read_manifest(left)
    assert unfinished > 5


def test_the_next_run_removes_what_is_left(killed, tmp_path):
    runs = shutil.copytree(killed / "runs", tmp_path / "runs")
    for run in runs.iterdir():
        if not (run / "merged").exists():
            again(killed, run / "merged")
        assert [path.name for path in run.iterdir()] == ["merged"]
        assert len(list((run / "merged").glob("*.safetensors"))) == 2
