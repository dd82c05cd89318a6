"""2. Open a study over a window of checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ckptmerge.config.study import StudySpec as StudyFile
from ckptmerge.domain.checkpoint import Checkpoint
from ckptmerge.domain.observation import Objective
from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.space import SearchSpace, SpaceKind
from ckptmerge.domain.study import Study, StudySpec, StudyState
from ckptmerge.domain.window import Window
from ckptmerge.errors import InvalidInputError
from ckptmerge.storage.records import (
    CheckpointRecord,
    EventRecord,
    Opening,
    RunRecord,
    StudyRecord,
)
from ckptmerge.storage.store import Unit
from ckptmerge.workflow.stored import as_checkpoint

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


def open_due(
    unit: Unit, run: RunRecord, *, now: float, new_id: Callable[[str], str]
) -> StudyRecord | None:
    """Open a study over the newest window where one is due.

    One study of a run at a time: checkpoints that arrive meanwhile wait, and the next study takes
    the newest window that is due then; windows skipped on the way are recorded.

    Raises:
        InvalidInputError: the run's study specification does not fit the window.
    """
    going = (StudyState.SEARCHING, StudyState.FROZEN)
    if any(unit.count(StudyRecord, run=run.name, state=state) for state in going):
        return None
    arrived = complete_checkpoints(unit, run)
    policy = run.window
    passed = (len(arrived) - run.considered) // policy.every
    # A window ends with every so many-th checkpoint, however long the study before it took.
    end = run.considered + passed * policy.every
    window = [c for c in arrived[:end] if c.removed is None][-policy.size :]
    if passed < 1 or len(window) < policy.minimum:
        return None
    unit.update(replace(run, considered=end))
    file = StudyFile.model_validate(dict(run.study))
    return record_study(unit, run, window, file, skipped=passed - 1, now=now, new_id=new_id)


def record_study(
    unit: Unit,
    run: RunRecord,
    window: Sequence[CheckpointRecord],
    file: StudyFile,
    *,
    skipped: int = 0,
    opening: Opening | None = None,
    now: float,
    new_id: Callable[[str], str],
) -> StudyRecord:
    """Put a study over a window on record, and that it was opened.

    Args:
        unit: Where it goes.
        run: Whose checkpoints they are.
        window: Oldest first.
        file: How to search.
        skipped: Windows that were passed over since the study before.
        opening: The request that opens it, where somebody does so by hand.
        now: Seconds since 1970.
        new_id: Makes an id.

    Raises:
        InvalidInputError: the specification does not fit the window.
        IncompatibleCheckpointsError: the checkpoints are not of one model.
    """
    study = open_study(
        [as_checkpoint(record) for record in window],
        space=file.space,
        lower=file.lower,
        upper=file.upper,
        budget=file.budget,
        seed=file.seed,
        dtype=file.dtype,
        objective=file.objective.objective(),
    )
    record = StudyRecord(
        id=new_id("s"),
        run=run.name,
        era=run.era,
        held_out=run.held_out,
        checkpoints=tuple(checkpoint.id for checkpoint in window),
        spec=study.spec,
        context=file.context,
        state=study.state,
        opening=opening,
        ahead=_ahead(unit, run, window),
        created=now,
    )
    unit.insert(record)
    data = {
        "study": record.id,
        "steps": [checkpoint.step for checkpoint in window],
        "skipped": skipped,
    }
    unit.insert(
        EventRecord(id=new_id("v"), run=run.name, kind="study-opened", data=data, created=now)
    )
    return record


def _ahead(unit: Unit, run: RunRecord, window: Sequence[CheckpointRecord]) -> str | None:
    """Return what is best of a run that has promoted nothing, where the window lacks it."""
    usable = [c.id for c in complete_checkpoints(unit, run) if c.removed is None]
    within = {checkpoint.id for checkpoint in window}
    return usable[-1] if run.best is None and usable and usable[-1] not in within else None


def complete_checkpoints(unit: Unit, run: RunRecord) -> list[CheckpointRecord]:
    """Return the complete checkpoints of the run's present attempt, in order of training.

    Those whose bytes were removed are among them: they are counted, and enter no window.
    """
    return [checkpoint for checkpoint in standing_checkpoints(unit, run) if not checkpoint.missing]


def standing_checkpoints(unit: Unit, run: RunRecord) -> list[CheckpointRecord]:
    """Return the checkpoints of the run's present attempt, in order of training.

    One whose place another has taken is not among them.
    """
    found = unit.find(CheckpointRecord, run=run.name)
    standing = [c for c in found if c.attempt == run.attempt and c.superseded_by is None]
    return sorted(standing, key=lambda checkpoint: checkpoint.step)
