"""Study files: what is wrong in them is named by file and field."""

from pathlib import Path

import pytest

from ckptmerge.config.study import StudySpec, load_study_spec
from ckptmerge.domain.observation import Objective
from ckptmerge.errors import InvalidInputError

EXAMPLE = Path(__file__).parents[3] / "configs" / "study.yaml"


def test_the_example_says_the_defaults() -> None:
    assert load_study_spec(EXAMPLE) == StudySpec()


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("")
    assert load_study_spec(tmp_path / "s.yaml") == StudySpec()


def test_an_objective_reaches_the_domain(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("objective: {domain_weights: {code: 2}, limits: {code: 0.1}}")
    spec = load_study_spec(tmp_path / "s.yaml")
    assert spec.objective.objective() == Objective({"code": 2.0}, {"code": 0.1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("budgett: 3", r"s\.yaml: budgett: Extra"),
        ("budget: many", r"s\.yaml: budget:"),
        ("space: cube", r"s\.yaml: space:"),
        ("objective: {metric: accuracy}", r"objective\.metric"),
        ("- 1", r"s\.yaml: file:"),
        ("a: [", "cannot read"),
        ("!!python/object/apply:os.system ['true']", "cannot read"),
    ],
)
def test_a_mistake_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        load_study_spec(tmp_path / "s.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere\.yaml"):
        load_study_spec(tmp_path / "nowhere.yaml")
