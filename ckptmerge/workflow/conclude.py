"""From a frozen winner to a verdict: write, test, audit, and only then make it the run's best."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ckptmerge.domain.artifact import Artifact
from ckptmerge.domain.baselines import NEWEST
from ckptmerge.domain.certificate import Certificate
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.task import Order, TaskKind, TaskState
from ckptmerge.domain.trial import Trial
from ckptmerge.evaluation.certificate import certify
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.storage.records import (
    AlphaRecord,
    ArtifactRecord,
    CheckpointRecord,
    RunRecord,
    Verdict,
)
from ckptmerge.storage.store import Snapshot
from ckptmerge.workflow.audit import Audit, audit, averages
from ckptmerge.workflow.blob_files import manifest_of_blobs
from ckptmerge.workflow.decide import Decision, best_uniform, decide, parent_of, rivals
from ckptmerge.workflow.desk import Desk
from ckptmerge.workflow.stored import StoredStudy, require

CURRENT = "current best"
"""What tests call the merge that is best so far."""


def conclude(desk: Desk, stored: StoredStudy) -> None:
    """Test a frozen study's claims, report on the audit split, and record the verdict.

    Raises:
        WaitingError: a worker's outcome is needed first; call again when it is there.
        RefusedError: something could not be done.
    """
    decision = decide(
        stored.study,
        held_out=stored.held_out.digest,
        materialise=lambda name, trial: _write(desk, stored, name, trial),
        test_number=lambda artifact: _test(desk, stored, artifact.digest),
        losses=lambda artifact: _losses(desk, stored, artifact),
        seed=stored.study.spec.seed,
    )
    stand_in = None if decision.best is not None else _newest_against_best(desk, stored)
    _promote(desk, stored, decision, _audit(desk, stored, decision), stand_in)


def _newest_against_best(desk: Desk, stored: StoredStudy) -> Certificate | None:
    """Test whether training has overtaken the merge that is best so far; None while there is none.

    Without this a run that no longer gains by merging would be stuck with an old merge for ever.
    """
    newest = stored.study.window.newest
    best = stored.run.best
    if best is None or best == newest.label:
        return None
    test = _test(desk, stored, newest.manifest.digest, against=(best,))
    scores = desk.all(
        {
            name: lambda subject=subject: desk.files(stored, subject, Split.CERTIFY)
            for name, subject in ((NEWEST, newest.label), (CURRENT, best))
        }
    )
    return certify(
        scores[NEWEST],
        {CURRENT: scores[CURRENT]},
        name=NEWEST,
        objective=stored.study.spec.objective,
        test=test,
        held_out=stored.held_out.digest,
        artifact=None,
        seed=stored.study.spec.seed,
    )


def _current_best(stored: StoredStudy) -> str | None:
    """Return the id of what was promoted last, in whichever era.

    Before the first time it is the newest checkpoint: None where the window ends with it.
    It is scored on this study's documents like every other rival: in a new era it stays best
    unless something beats it there. What a person has pinned is served, and is nobody's rival.
    """
    return stored.run.best or stored.record.ahead


def _write(desk: Desk, stored: StoredStudy, name: str, trial: Trial) -> Artifact:
    """Return a claim's merge, as a worker wrote it."""
    spec, window = stored.study.spec, stored.study.window
    order = Order(weights=trial.weights)
    task = desk.done(stored, TaskKind.MATERIALISE, f"write-{name}", order).task
    recipe = Recipe(tuple(c.manifest.content for c in window), trial.weights, spec.dtype)
    with desk.store.read() as snapshot:
        known = _written(snapshot, stored, lambda record: record.name == name)
    if known is None:
        record = ArtifactRecord(
            id=desk.new_id("a"),
            run=stored.run.name,
            study=stored.record.id,
            name=name,
            weights=trial.weights,
            dtype=spec.dtype,
            manifest=manifest_of_blobs(desk.blobs, task.outcome.files if task.outcome else ()),
            created=desk.now(),
        )
        with desk.store.write() as unit:
            desk.require_going_on(unit, stored)
            known = unit.insert(record)
    return Artifact(recipe, known.manifest)


def _written(
    snapshot: Snapshot, stored: StoredStudy, wanted: Callable[[ArtifactRecord], bool]
) -> ArtifactRecord | None:
    return next(filter(wanted, snapshot.find(ArtifactRecord, study=stored.record.id)), None)


def _record_of(desk: Desk, stored: StoredStudy, artifact: Artifact) -> ArtifactRecord:
    with desk.store.read() as snapshot:
        found = _written(snapshot, stored, lambda r: r.manifest.digest == artifact.digest)
    if found is None:
        raise LookupError(f"{artifact.digest} was tested and never recorded")
    return found


def _subjects(stored: StoredStudy) -> dict[str, str]:
    """Name what a claim must beat, by id: newest, best parent, and the current best merge."""
    subjects = {
        name: parent_of(stored.study, trial).label for name, trial in rivals(stored.study).items()
    }
    best = _current_best(stored)
    if best is not None and best not in subjects.values():
        subjects[CURRENT] = best
    return subjects


def _test(
    desk: Desk, stored: StoredStudy, subject: Digest, *, against: Sequence[str] | None = None
) -> int:
    """Record that these bytes are tested, which spends alpha; the same test keeps its number."""
    keys = tuple(_subjects(stored).values()) if against is None else against
    with desk.store.read() as snapshot:
        rivals_tested = tuple(sorted(_digest(snapshot, key) for key in keys))
    with desk.store.write() as unit:
        # A study that ended with its era must not spend the alpha of the next one.
        desk.require_going_on(unit, stored)
        for made in unit.find(AlphaRecord, run=stored.run.name, era=stored.record.era):
            if (made.subject, made.rivals) == (subject, rivals_tested):
                return made.number
        run = require(unit, RunRecord, stored.run.name, "run")
        number, era = run.run.era.next_test()
        unit.update(replace(run, run=replace(run.run, era=era)))
        unit.insert(
            AlphaRecord(
                id=desk.new_id("e"),
                run=run.name,
                era=stored.record.era,
                number=number,
                subject=subject,
                rivals=rivals_tested,
                created=desk.now(),
            )
        )
        return number


def _digest(snapshot: Snapshot, key: str) -> Digest:
    if key.startswith("a_"):
        return require(snapshot, ArtifactRecord, key, "artifact").manifest.digest
    return require(snapshot, CheckpointRecord, key, "checkpoint").manifest.digest


def _losses(
    desk: Desk, stored: StoredStudy, artifact: Artifact
) -> tuple[DocumentScores, Mapping[str, DocumentScores]]:
    """Return the certify split's scores of the bytes and of every rival."""
    subjects = {"": _record_of(desk, stored, artifact).id, **_subjects(stored)}
    scores = desk.all(
        {
            name: lambda subject=subject: desk.files(stored, subject, Split.CERTIFY)
            for name, subject in subjects.items()
        }
    )
    return scores.pop(""), scores


def _audit(desk: Desk, stored: StoredStudy, decision: Decision) -> Audit:
    """Report the promoted bytes, their rivals and the averages on the audit split."""
    study = stored.study
    against = _subjects(stored)
    subjects = dict(against)
    if decision.artifact is not None:
        subjects[""] = _record_of(desk, stored, decision.artifact).id
    readers: dict[str, Callable[[], DocumentScores]] = {
        name: lambda subject=subject: desk.files(stored, subject, Split.AUDIT)
        for name, subject in subjects.items()
    }
    readers |= {
        name: lambda name=name, weights=weights: desk.candidate(stored, name, weights, Split.AUDIT)
        for name, weights in averages(study).items()
    }
    scores = desk.all(readers)
    uniform = best_uniform(study)
    return audit(
        subject=scores.pop("", None),
        baselines=scores,
        rivals=tuple(against),
        best_uniform=None if uniform is None else uniform.name,
        objective=study.spec.objective,
        seed=study.spec.seed,
    )


def _promote(
    desk: Desk,
    stored: StoredStudy,
    decision: Decision,
    report: Audit,
    stand_in: Certificate | None,
) -> None:
    """Write the verdict and, where something was shown better, make it best: one transaction.

    While a person has pinned the best, the verdict says what would have been promoted, and nothing
    is: neither what is served nor what the next study must beat changes under a pin.
    """
    merge = None if decision.artifact is None else _record_of(desk, stored, decision.artifact)
    best, reason = None if merge is None else merge.id, decision.reason
    if stand_in is not None and stand_in.passed:
        best = stored.study.window.newest.label
        why = decision.reason.removeprefix("nothing promoted: ")
        reason = f"the newest checkpoint beats the merge that was best; {why}"
    before = _current_best(stored)
    named = {subject: name for name, subject in _subjects(stored).items()}
    verdict = Verdict(
        best=best,
        before=before,
        before_score=None if before is None else report.baselines[named[before]],
        weights=None if decision.best is None else decision.best.weights,
        reason=reason,
        certificates=(*decision.certificates, *([stand_in] if stand_in is not None else [])),
        score=report.score,
        baselines=report.baselines,
        gains=report.gains,
        better_than_uniform=report.better_than_uniform,
        passes=passes(stored),
    )
    with desk.store.write() as unit:
        desk.require_going_on(unit, stored)
        run = require(unit, RunRecord, stored.run.name, "run")
        if best is not None and run.pin is not None:
            reason = f"{reason}: would have been promoted; the best is pinned by hand"
            verdict = replace(verdict, best=None, reason=reason)
        unit.update(replace(stored.record, state=decision.study.state, verdict=verdict))
        if verdict.best is not None:
            unit.update(replace(run, best=verdict.best, promotion=stored.record.id))
        if merge is not None and verdict.best == merge.id:
            unit.update(replace(merge, promoted=True))
        kind = "study-decided" if verdict.best is None else "best-promoted"
        desk.emit(unit, stored, kind, artifact=verdict.best, reason=verdict.reason)


def passes(stored: StoredStudy) -> dict[str, int]:
    """Count the forward passes that were made, by split."""
    made = Counter[str]()
    for record in stored.tasks:
        order = record.task.order
        if order.split is not None and record.task.state is TaskState.DONE and not record.reused:
            made[order.split] += 2 if order.repeat else 1
    return {split: made[split] for split in (Split.SEARCH, Split.CERTIFY, Split.AUDIT)}
