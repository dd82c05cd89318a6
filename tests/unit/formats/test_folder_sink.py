"""The folder sink: the whole model under its name, or nothing."""

import errno
import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors import safe_open

from ckptmerge.domain.checkpoint import Manifest, TensorSpec
from ckptmerge.errors import (
    InvalidInputError,
    NonFiniteTensorError,
    OutOfSpaceError,
    OutputExistsError,
)
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.formats.shards import plan_shards
from ckptmerge.formats.sink import FolderSink

SPECS = (
    TensorSpec("b", "F32", (4,)),
    TensorSpec("a", "BF16", (3,)),
    TensorSpec("c", "U8", (5,)),
    TensorSpec("none", "F32", (0,)),
)


def identified(folder):
    """The manifest of a folder as its writer knows it: files by digest, tensors by header."""
    return Manifest(read_manifest(folder).files, read_manifest(folder, digests=False).tensors)


def sink(out, *, shard_size=10**9, specs=SPECS):
    return FolderSink(out, specs, metadata={"format": "pt"}, shard_size=shard_size)


def fill(opened, content=b"\x01"):
    for spec in opened.order:
        view = opened.lend(spec.bytes)
        view[:] = content * spec.bytes
        opened.write(spec.name, view)


def write(out, **kwargs):
    with sink(out, **kwargs) as opened:
        fill(opened)
        return opened.publish({"config.json": b"{}"}, {"recipe.json": b"[]"})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(path: Path, kind: str) -> None:
    """Make somebody else's file, empty folder or full folder."""
    if kind == "file":
        path.write_text("mine")
        return
    path.mkdir()
    if kind == "full":
        (path / "mine").write_text("mine")


def write_while(out: Path, kind: str) -> None:
    with sink(out) as opened:
        fill(opened)
        put(out, kind)
        opened.publish({}, {})


def test_the_manifest_is_that_of_the_folder(tmp_path):
    manifest = write(tmp_path / "out")
    assert manifest == identified(tmp_path / "out")
    assert names(tmp_path / "out") == [
        "config.json",
        "model.safetensors",
        "recipe.json",
    ]
    assert names(tmp_path) == ["out"]


def test_extra_files_do_not_change_the_digest(tmp_path):
    with sink(tmp_path / "out") as opened:
        fill(opened)
        bare = opened.publish({"config.json": b"{}"}, {})
    assert bare.digest == write(tmp_path / "other").digest


def test_shards_are_named_and_indexed_as_transformers_does(tmp_path):
    manifest = write(tmp_path / "out", shard_size=16)
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.safetensors")) == names
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_parameters": 7, "total_size": 27}
    assert index["weight_map"] == {"a": names[0], "b": names[1], "c": names[2], "none": names[2]}
    assert manifest == identified(tmp_path / "out")
    for name in names:
        with safe_open(tmp_path / "out" / name, "np") as file:
            assert file.metadata() == {"format": "pt"}


def test_a_tensor_larger_than_a_shard_gets_its_own():
    shards = plan_shards(SPECS[:3], 1)
    assert [[spec.name for spec in shard.specs] for shard in shards] == [["a"], ["b"], ["c"]]


def test_shards_fill_up_to_the_limit_and_not_beyond():
    specs = [TensorSpec(name, "U8", (4,)) for name in "abcde"]
    assert [len(shard.specs) for shard in plan_shards(specs, 8)] == [2, 2, 1]
    assert [len(shard.specs) for shard in plan_shards(specs, 7)] == [1, 1, 1, 1, 1]


def test_every_tensor_is_aligned_to_its_width(tmp_path):
    for entry in write(tmp_path / "out").tensors:
        width = max(1, entry.spec.bytes // max(entry.spec.elements, 1))
        assert entry.offset % width == 0


@pytest.mark.parametrize("kind", ["empty", "full", "file", "dangling link"])
def test_what_exists_is_never_touched(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        put(out, kind)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputExistsError, match="left as it is"), sink(out):
        pass
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["empty", "full", "file"])
def test_what_appears_meanwhile_is_not_overwritten(tmp_path, kind):
    out = tmp_path / "out"
    with pytest.raises(OutputExistsError):
        write_while(out, kind)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["full", "file"])
def test_not_even_when_it_appears_at_the_last_moment(tmp_path, kind, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(OutputExistsError):
        write_while(out, kind)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing_behind(tmp_path, error):
    def interrupted() -> None:
        with sink(tmp_path / "out") as opened:
            opened.write("b", opened.lend(4))
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == []


def test_leaving_without_publishing_leaves_nothing(tmp_path):
    with sink(tmp_path / "out") as opened:
        fill(opened)
    assert names(tmp_path) == []


def test_publishing_half_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="have not been written"), sink(tmp_path / "o") as opened:
        opened.publish({}, {})
    assert names(tmp_path) == []


def test_more_than_the_model_is_refused(tmp_path):
    with sink(tmp_path / "out") as opened:
        fill(opened)
        with pytest.raises(ValueError, match="written already"):
            opened.lend(1)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "model.safetensors", ".."])
def test_side_files_cannot_leave_the_folder_or_replace_weights(tmp_path, name):
    (tmp_path / "in").mkdir()
    with sink(tmp_path / "in" / "out") as opened:
        fill(opened)
        with pytest.raises(ValueError, match="name"):
            opened.publish({name: b""}, {})
    assert list(tmp_path.rglob("*")) == [tmp_path / "in"]


def test_numbers_that_are_not_finite_are_not_published(tmp_path):
    with pytest.raises(NonFiniteTensorError, match=r"b \(4 numbers\)"), sink(tmp_path / "o") as s:
        fill(s, b"\xff")
    assert names(tmp_path) == []


def test_too_little_space_is_refused_before_a_byte_is_written(tmp_path):
    huge = [TensorSpec("a", "U8", (2**60,))]
    with pytest.raises(OutOfSpaceError, match=r"needs 1,152,921,504,606,846,976 bytes and .* free"):
        sink(tmp_path / "out", specs=huge).__enter__()
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, code, after):
    before = names(Path("/proc/self/fd"))
    real, calls = os.write, []

    def full(descriptor, view):
        calls.append(len(view))
        if len(calls) > after:
            raise OSError(code, os.strerror(code))
        return real(descriptor, view)

    monkeypatch.setattr(os, "write", full)
    expected = OSError if code == errno.EIO else OutOfSpaceError
    with pytest.raises(expected):
        write(tmp_path / "out", shard_size=16)
    assert len(calls) > after
    assert names(tmp_path) == []
    assert len(names(Path("/proc/self/fd"))) == len(before)


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, view: real(fd, view[:3]))
    assert write(tmp_path / "out") == identified(tmp_path / "out")


def test_bytes_are_synced_before_a_name_and_names_before_the_end(tmp_path, monkeypatch):
    """A power cut after any prefix of these steps shows no file with a good name and no bytes."""
    events: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def recorded_fsync(descriptor):
        events.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def recorded_rename(path, target):
        events.append(("rename", Path(target).name))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    write(tmp_path / "out", shard_size=16)

    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    at = {event: position for position, event in enumerate(events)}
    for name in names:
        assert at["sync", f"{name}.incomplete"] < at["rename", name]
    folder = next(name for kind, name in events if kind == "sync" and name.startswith(".out"))
    for name in ("config.json", "recipe.json", "model.safetensors.index.json"):
        assert at["sync", name] < at["sync", folder]
    assert max(at["rename", name] for name in names) < at["sync", folder]
    assert at["sync", folder] < at["rename", "out"] < at["sync", tmp_path.name]
    assert events[-1] == ("sync", tmp_path.name)


def test_what_a_dead_writer_left_is_removed_and_what_a_live_one_holds_is_not(tmp_path):
    dead = tmp_path / ".out.partial-dead"
    other = tmp_path / ".other.partial-dead"
    for folder in (dead, other):
        folder.mkdir()
        (folder / "model.safetensors.incomplete").write_bytes(b"x")
    with sink(tmp_path / "out") as opened:
        assert not dead.exists()
        assert other.exists()
        live = next(tmp_path.glob(".out.partial-*"))
        write(tmp_path / "elsewhere" / "out")
        with suppress(OutputExistsError), sink(tmp_path / "out"):
            assert live.exists()
        fill(opened)
        opened.publish({}, {})
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_folder_that_another_run_took_for_dead_is_made_again(tmp_path, monkeypatch):
    real, taken = fcntl.flock, []

    def taken_once(descriptor, how):
        if not taken:
            taken.append(descriptor)
            raise BlockingIOError
        return real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", taken_once)
    assert write(tmp_path / "out") == identified(tmp_path / "out")


@pytest.mark.parametrize("out", ["/", ".."])
def test_an_output_that_is_no_new_folder_is_refused(out):
    with pytest.raises(InvalidInputError, match="name a new one"):
        sink(Path(out))


def test_missing_parents_are_made(tmp_path):
    write(tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "model.safetensors").exists()


def test_no_descriptor_is_left_open(tmp_path):
    before = len(names(Path("/proc/self/fd")))
    write(tmp_path / "out", shard_size=16)
    with pytest.raises(RuntimeError), sink(tmp_path / "broken"):
        raise RuntimeError
    assert len(names(Path("/proc/self/fd"))) == before
