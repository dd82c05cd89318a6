"""Every area of `make torture`, in its short form."""

from pathlib import Path

import pytest

from tests.torture.areas import AREAS, torture_of
from tests.torture.finding import CannotTryError, Scale


@pytest.mark.parametrize("area", AREAS)
def test_every_promise_of_an_area_holds(area: str, tmp_path: Path) -> None:
    try:
        findings = list(torture_of(area)(Scale.SHORT, tmp_path))
    except CannotTryError as reason:
        pytest.skip(str(reason))
    assert findings, "an area that finds nothing has tried nothing"
    assert not [str(finding) for finding in findings if not finding.held]
