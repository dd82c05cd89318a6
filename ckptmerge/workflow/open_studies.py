"""2. Open a study over a window of checkpoints."""

from collections.abc import Sequence

from ckptmerge.domain.checkpoint import Checkpoint
from ckptmerge.domain.observation import Objective
from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.space import SearchSpace, SpaceKind
from ckptmerge.domain.study import Study, StudySpec
from ckptmerge.domain.window import Window
from ckptmerge.errors import InvalidInputError

LOWER, UPPER = 0.0, 1.0
PAIR_LOWER, PAIR_UPPER = -0.25, 1.5


def open_study(
    checkpoints: Sequence[Checkpoint],
    *,
    space: SpaceKind = "simplex",
    lower: float | None = None,
    upper: float | None = None,
    budget: int = 24,
    seed: int = 0,
    dtype: OutputDtype = "keep",
    objective: Objective | None = None,
) -> Study:
    """Open a study over all of the checkpoints, which stand oldest first.

    ``lower`` and ``upper`` bound each weight (of a pair: the newer checkpoint's weight).

    Raises:
        InvalidInputError: the space does not fit the checkpoints, or the budget cannot even measure
            each of them once, which any claim to beat the best of them needs.
        IncompatibleCheckpointsError: the checkpoints are not of one model.
    """
    window = Window(tuple(checkpoints))
    if space == "pair" and len(window) != 2:
        raise InvalidInputError(
            f"space 'pair' weighs two checkpoints, not {len(window)}; name two, or use 'simplex'"
        )
    if budget < len(window) + 1:
        raise InvalidInputError(
            f"a budget of {budget} passes cannot measure {len(window)} checkpoints and one merge; "
            f"use at least {len(window) + 1}"
        )
    if space == "pair":
        box = SearchSpace.pair(
            PAIR_LOWER if lower is None else lower, PAIR_UPPER if upper is None else upper
        )
    else:
        box = SearchSpace.simplex(
            len(window), LOWER if lower is None else lower, UPPER if upper is None else upper
        )
    spec = StudySpec(
        box, budget=budget, seed=seed, dtype=dtype,
        objective=Objective() if objective is None else objective,
    )  # fmt: skip
    return Study(window, spec)
