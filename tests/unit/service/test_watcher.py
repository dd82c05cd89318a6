"""The watcher hands out what has settled, once, and never what is half there."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from structlog.testing import capture_logs

from ckptmerge.client.client import Client
from ckptmerge.errors import InvalidInputError
from service.watcher import Watcher, _push


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def write(folder: Path, value: float = 1.0) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"w": torch.full((1000,), value)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def names(watcher: Watcher, now: float) -> list[str]:
    return [settled.path.name for settled in watcher.look(now)]


def test_a_checkpoint_is_handed_out_when_nothing_has_changed_for_long_enough(root: Path) -> None:
    watcher = Watcher(root, settled_after=5)
    write(root / "step-1")
    assert names(watcher, 0) == []
    assert names(watcher, 4.9) == []
    assert names(watcher, 5) == ["step-1"]


def test_one_that_was_dealt_with_is_not_handed_out_again_until_it_changes(root: Path) -> None:
    watcher = Watcher(root, settled_after=5)
    write(root / "step-1")
    watcher.look(0)
    for settled in watcher.look(5):
        watcher.done(settled)
    assert names(watcher, 100) == []
    os.utime(write(root / "step-1", 2.0) / "model.safetensors", ns=(1, 1))
    assert names(watcher, 101) == []
    assert names(watcher, 106) == ["step-1"]


def test_one_that_was_not_dealt_with_is_handed_out_again(root: Path) -> None:
    watcher = Watcher(root, settled_after=5)
    write(root / "step-1")
    watcher.look(0)
    assert names(watcher, 5) == ["step-1"]
    assert names(watcher, 6) == ["step-1"]


def test_a_file_that_grows_keeps_its_folder_back(root: Path) -> None:
    """A slow writer: the file stands under its good name all the while."""
    whole = write(root.parent / "whole") / "model.safetensors"
    content = whole.read_bytes()
    folder = root / "step-1"
    folder.mkdir()
    watcher = Watcher(root, settled_after=5)
    for second in range(60):
        written = content[: len(content) * second // 60]
        (folder / "model.safetensors").write_bytes(written)
        assert names(watcher, second) == []


def test_a_writer_that_died_half_way_is_never_handed_out(root: Path) -> None:
    folder = write(root / "step-1")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])
    watcher = Watcher(root, settled_after=5)
    for second in range(0, 100, 5):
        assert names(watcher, second) == []
    (folder / "model.safetensors").write_bytes(content)
    watcher.look(100)
    assert names(watcher, 105) == ["step-1"]


@pytest.mark.parametrize("name", ["x.tmp", "model.safetensors.incomplete", "a.lock"])
def test_a_folder_in_which_somebody_says_that_they_write_is_kept_back(
    root: Path, name: str
) -> None:
    folder = write(root / "step-1")
    (folder / name).touch()
    watcher = Watcher(root, settled_after=5)
    watcher.look(0)
    assert names(watcher, 100) == []


@pytest.mark.parametrize("name", [".step-1", "step-1.tmp", "step-1.partial"])
def test_folders_that_say_they_are_not_finished_are_not_looked_at(root: Path, name: str) -> None:
    write(root / name)
    watcher = Watcher(root, settled_after=5)
    watcher.look(0)
    assert names(watcher, 100) == []


def test_what_a_link_points_to_is_never_taken(root: Path) -> None:
    outside = write(root.parent / "outside")
    (root / "step-1").symlink_to(outside)
    (root / "step-2").mkdir()
    (root / "step-2" / "model.safetensors").symlink_to(outside / "model.safetensors")
    write(root / "step-3")
    (root / "step-3" / "config.json").unlink()
    (root / "step-3" / "config.json").symlink_to("/etc/hostname")
    watcher = Watcher(root, settled_after=5)
    watcher.look(0)
    assert names(watcher, 100) == []


def test_why_a_folder_is_not_taken_is_said_once(root: Path) -> None:
    (root / "step-1").mkdir()
    (root / "step-1" / "model.safetensors").write_bytes(b"\x80\x04" + bytes(20))
    watcher = Watcher(root, settled_after=5)
    with capture_logs() as said:
        for second in range(0, 100, 5):
            assert names(watcher, second) == []
    (warning,) = said
    assert warning["path"] == str(root / "step-1")
    assert "a Python pickle" in warning["reason"]


def test_a_folder_that_becomes_a_link_after_it_settled_is_not_pushed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the root has all the time between a look and a push."""
    outside = write(root.parent / "step-1", 7.0)
    watcher = Watcher(root, settled_after=5)
    write(root / "step-1")
    watcher.look(0)
    (settled,) = watcher.look(5)
    shutil.rmtree(root / "step-1")
    (root / "step-1").symlink_to(outside)
    with Client("http://127.0.0.1:9") as client:
        monkeypatch.setattr(client, "push", lambda *_, **__: pytest.fail("it was read"))
        _push(client, watcher, settled, "run")


def test_what_is_pushed_is_what_was_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = write(root.parent / "step-1", 7.0)
    inside = (write(root / "step-1") / "model.safetensors").read_bytes()
    pushed: list[bytes] = []

    def flip_and_read(path: Path, **_: object) -> None:
        (root / "step-1").rename(root.parent / "aside")
        (root / "step-1").symlink_to(outside)
        pushed.append((path / "model.safetensors").read_bytes())
        raise InvalidInputError("enough")

    watcher = Watcher(root, settled_after=5)
    watcher.look(0)
    (settled,) = watcher.look(5)
    with Client("http://127.0.0.1:9") as client:
        monkeypatch.setattr(client, "push", flip_and_read)
        _push(client, watcher, settled, "run")
    assert pushed == [inside]


@pytest.mark.parametrize("state", ["[" * 100_000, '{"global_step": 1e999}', "[]", "\0"])
def test_what_a_trainer_left_behind_does_not_end_the_watching(root: Path, state: str) -> None:
    (write(root / "step-1") / "trainer_state.json").write_text(state)
    watcher = Watcher(root, settled_after=5)
    watcher.look(0)
    (settled,) = watcher.look(5)
    with Client("http://127.0.0.1:9") as client:
        _push(client, watcher, settled, "run")
    assert names(watcher, 10) == []


def test_pipes_and_files_that_are_no_models_are_passed_over(root: Path) -> None:
    (root / "step-1").mkdir()
    os.mkfifo(root / "step-1" / "model.safetensors")
    (root / "step-2").mkdir()
    (root / "step-2" / "pytorch_model.bin").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    watcher = Watcher(root, settled_after=5)
    watcher.look(0)
    assert names(watcher, 100) == []


def test_a_folder_that_goes_away_is_forgotten(root: Path) -> None:
    watcher = Watcher(root, settled_after=5)
    write(root / "step-1")
    watcher.look(0)
    shutil.rmtree(root / "step-1")
    assert names(watcher, 5) == []
    write(root / "step-1")
    assert names(watcher, 6) == []
    assert names(watcher, 11) == ["step-1"]


def test_a_root_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "later", settled_after=5)
    assert names(watcher, 0) == []
