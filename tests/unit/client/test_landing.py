"""A landing folder is found again by who comes back, and becomes visible whole."""

from contextlib import closing
from pathlib import Path

import pytest

from ckptmerge.client.landing import Landing
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import OutputExistsError, RefusedError

ONE, OTHER = Digest.of_bytes(b"one"), Digest.of_bytes(b"other")


def test_who_comes_back_for_the_same_finds_what_is_there(tmp_path: Path) -> None:
    with closing(Landing(tmp_path / "out", ONE)) as landing:
        (landing.folder / "file").write_bytes(b"half")
    with closing(Landing(tmp_path / "out", ONE)) as landing:
        assert (landing.folder / "file").read_bytes() == b"half"
        assert not (tmp_path / "out").exists()
        landing.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_left_of_other_downloads_is_cleared_away(tmp_path: Path) -> None:
    Landing(tmp_path / "out", ONE).close()
    Landing(tmp_path / "out", OTHER).close()
    Landing(tmp_path / "beside", ONE).close()
    assert {path.name for path in tmp_path.iterdir()} == {
        f".out.download-{OTHER.hex[:16]}", f".beside.download-{ONE.hex[:16]}",
    }  # fmt: skip


def test_a_folder_that_somebody_holds_is_left_alone(tmp_path: Path) -> None:
    with closing(Landing(tmp_path / "out", ONE)) as held:
        Landing(tmp_path / "out", OTHER).close()
        assert held.folder.exists()
        with pytest.raises(RefusedError, match="another process"):
            Landing(tmp_path / "out", ONE)


def test_what_stands_there_is_never_replaced(tmp_path: Path) -> None:
    with closing(Landing(tmp_path / "out", ONE)) as landing:
        (tmp_path / "out").mkdir()
        with pytest.raises(OutputExistsError):
            landing.publish()
    with pytest.raises(OutputExistsError):
        Landing(tmp_path / "out", ONE)


def test_a_refusal_leaves_no_descriptor_open(tmp_path: Path) -> None:
    with closing(Landing(tmp_path / "out", ONE)):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            with pytest.raises(RefusedError):
                Landing(tmp_path / "out", ONE)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
