"""Study files: how to search, in YAML."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ckptmerge.domain.observation import Objective
from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.space import SpaceKind
from ckptmerge.errors import InvalidInputError


class ObjectiveSpec(BaseModel):
    """What to minimise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: Literal["bits_per_byte"] = "bits_per_byte"
    domain_weights: dict[str, float] = Field(default_factory=dict)
    limits: dict[str, float] = Field(default_factory=dict)

    def objective(self) -> Objective:
        """Return the domain's objective."""
        return Objective(domain_weights=self.domain_weights, limits=self.limits)


class StudySpec(BaseModel):
    """How to search a window; every field has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    space: SpaceKind = "simplex"
    lower: float | None = None
    """Smallest weight (of a pair: of the newer checkpoint); None is the space's own default."""
    upper: float | None = None
    budget: int = Field(default=24, ge=1)
    seed: int = Field(default=0, ge=0)
    dtype: OutputDtype = "keep"
    context: int | None = Field(default=None, ge=2)
    """Longest passage scored, in tokens; None is the model's own context, 2048 at most."""
    objective: ObjectiveSpec = ObjectiveSpec()


def load_study_spec(path: Path) -> StudySpec:
    """Read a study file.

    Raises:
        InvalidInputError: it cannot be read, is not YAML, or has a field that is unknown or wrong;
            the message names file and field.
    """
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"cannot read the study file {path}: {error}") from error
    try:
        return StudySpec.model_validate({} if raw is None else raw)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()
        )
        raise InvalidInputError(f"{path}: {problems}") from error
