"""What is read is what was opened, wherever its names lead by then; links are not followed."""

import os
from pathlib import Path

import pytest

from ckptmerge.errors import CheckpointFormatError, SourceRefusedError
from ckptmerge.formats import held_folder
from ckptmerge.formats.held_folder import hold
from ckptmerge.formats.manifest import find_layout
from ckptmerge.formats.step import step_and_tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run" / "step-7"
    made.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "optimizer.pt", ".hidden.safetensors"):
        (made / name).write_bytes(name.encode())
    return made


def descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")  # noqa: PTH208 - names, not paths


def test_a_folder_is_read_under_its_own_name_with_the_files_of_a_model(folder: Path) -> None:
    before = len(descriptors())
    with hold(folder.parent.parent, ["run", "step-7"]) as held:
        assert sorted(file.name for file in held.iterdir()) == ["config.json", "model.safetensors"]
        assert find_layout(held).weights == ("model.safetensors",)
        assert step_and_tokens(held) == (7, None)
    assert len(descriptors()) == before
    assert not held.exists()


def test_what_is_replaced_meanwhile_is_read_as_it_was(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with hold(tmp_path, ["run", "step-7"]) as held:
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to(tmp_path / "secret")
        folder.rename(tmp_path / "moved")
        folder.symlink_to(tmp_path)
        assert (held / "config.json").read_bytes() == b"config.json"


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_replaced_between_the_look_and_the_opening_is_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_bytes(b"secret")
    really = os.open

    def replaced_first(name: str | Path, flags: int, *, dir_fd: int | None = None) -> int:
        if name == "config.json":
            place = folder if what == "folder" else folder / "config.json"
            place.rename(tmp_path / "aside")
            place.symlink_to(outside if what == "folder" else outside / "config.json")
        return really(name, flags, dir_fd=dir_fd)

    monkeypatch.setattr(held_folder.os, "open", replaced_first)
    if what == "file":
        with pytest.raises(SourceRefusedError), hold(tmp_path, ["run", "step-7"]):
            pass
    else:
        with hold(tmp_path, ["run", "step-7"]) as held:
            assert (held / "config.json").read_bytes() == b"config.json"


def test_a_file_can_be_held_by_itself(folder: Path) -> None:
    with hold(folder, ["model.safetensors"]) as held:
        assert held.name == "model.safetensors"
        assert held.read_bytes() == b"model.safetensors"


@pytest.mark.parametrize("what", ["model.safetensors", "config.json", "trainer_state.json"])
def test_a_link_among_the_files_of_a_model_is_refused(folder: Path, what: str) -> None:
    (folder / what).unlink(missing_ok=True)
    (folder / what).symlink_to("/etc/hostname")
    with pytest.raises(SourceRefusedError, match=rf"{what} is a link"), hold(folder, []):
        pass


@pytest.mark.parametrize(
    "way",
    [
        ["link", "step-7"],
        ["link"],
        ["run", "step-7", ".."],
        [".."],
        ["run/step-7"],
        ["", "run"],
        ["\0"],
    ],
    ids=str,
)
def test_a_way_that_does_not_go_straight_down_is_refused(
    folder: Path, tmp_path: Path, way: list[str]
) -> None:
    (tmp_path / "link").symlink_to(folder.parent)
    before = len(descriptors())
    with pytest.raises(SourceRefusedError), hold(tmp_path, way):
        pass
    assert len(descriptors()) == before


def test_pipes_are_not_waited_for(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(CheckpointFormatError, match="neither a regular file"), hold(folder, []):
        pass


def test_more_files_than_a_process_may_open_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_folder, "MOST_FILES", 1)
    with pytest.raises(CheckpointFormatError, match="2 files of a model"), hold(folder, []):
        pass


def test_what_is_wrong_is_said_of_the_path_it_was_given_by(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointFormatError) as wrong, hold(folder, []) as held:
        find_layout(held)
    assert str(wrong.value).startswith(f"{folder} holds no safetensors")
