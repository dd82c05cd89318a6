"""Every area of `make torture`, in its short form, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.areas import AREAS
from tests.torture.finding import NOT_TRIED


@pytest.mark.parametrize("area", AREAS)
def test_every_promise_of_an_area_holds(area: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", area, "--short"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == NOT_TRIED:
        pytest.skip(done.stdout[-2000:])
    assert done.returncode == 0, done.stdout[-8000:]
    assert "| held" in done.stdout, "an area that finds nothing has tried nothing"
