"""A claimed folder belongs to whoever made it, until that process ends."""

import subprocess
import sys
from pathlib import Path

from ckptmerge.formats.claim import ClaimedFolder

CLAIM = "import sys; from pathlib import Path; from ckptmerge.formats.claim import ClaimedFolder"


def test_a_dead_makers_folder_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    code = f"{CLAIM}; f = ClaimedFolder(Path(sys.argv[1]), '.x-'); (f.path / 'model').touch()"
    kill = "; import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code + kill, str(tmp_path)], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    ClaimedFolder(tmp_path, ".x-").remove()
    assert not left.exists()


def test_a_living_makers_folder_stays(tmp_path: Path) -> None:
    first = ClaimedFolder(tmp_path, ".x-")
    second = ClaimedFolder(tmp_path, ".x-")
    assert first.path.exists()
    assert first.path != second.path
    first.remove()
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_other_prefixes_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".y-1").mkdir()
    ClaimedFolder(tmp_path, ".x-").remove()
    assert (tmp_path / ".y-1").exists()
