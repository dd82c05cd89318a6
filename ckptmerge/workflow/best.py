"""What the best weights of a run are, and what is known of them on the documents of its era."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ckptmerge.domain.baselines import NEWEST
from ckptmerge.domain.checkpoint import Manifest
from ckptmerge.storage.records import (
    ArtifactRecord,
    CheckpointRecord,
    RunRecord,
    StudyRecord,
    Verdict,
)
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire import best as wire
from ckptmerge.workflow.answers import files_of, timestamp, verdict_resource
from ckptmerge.workflow.pin import served
from ckptmerge.workflow.stored import require


@dataclass(frozen=True)
class _Subject:
    """What is best: the files, and the checkpoints that went into them."""

    manifest: Manifest
    href: str
    weighed: tuple[tuple[CheckpointRecord, float], ...]
    """Oldest first; the newest says which step it is."""
    artifact: str | None = None


def best_of(snapshot: Snapshot, run: RunRecord) -> wire.Best | None:
    """Answer "what are the best weights of this run"; None while there are none at all.

    Scores and gains are of the documents that judge the run now, or are not given.
    """
    key = served(run)
    if key is None:
        return _newest(snapshot, run)
    decision = _decision(snapshot, run, key)
    numbers = None if decision is None else _numbers(snapshot, run, key, decision)
    return _answer(
        run,
        _merge(snapshot, key) if key.startswith("a_") else _checkpoint(snapshot, key),
        reason="; ".join([*_pinned(run), *_decided(run, decision, measured=numbers is not None)]),
        decision=decision,
        numbers=numbers,
        promoted=decision is not None,
    )


def _newest(snapshot: Snapshot, run: RunRecord) -> wire.Best | None:
    """Answer with the newest checkpoint, of a run that has promoted nothing yet."""
    found = snapshot.find(CheckpointRecord, run=run.name, newest_first=True)
    standing = [c for c in found if c.attempt == run.attempt and c.superseded_by is None]
    usable = [c for c in standing if not c.missing and c.removed is None]
    if not usable:
        return None
    newest = max(usable, key=lambda checkpoint: checkpoint.step)
    subject = _checkpoint(snapshot, newest.id)
    study = next(_decided_in_this_era(snapshot, run), None)
    verdict = None if study is None else study.verdict
    if study is None or verdict is None:
        since = "" if run.era == 1 else f" in era {run.era}"
        none = f"no study of this run has been decided yet{since}"
        return _answer(run, subject, reason=f"{none}; this is its newest checkpoint")
    if newest.id != study.checkpoints[-1]:
        return _answer(run, subject, reason=f"newest checkpoint; the last study: {verdict.reason}")
    # What passed under a pin was not promoted, and its numbers are not those of the newest.
    numbers = replace(
        verdict, score=verdict.baselines.get(NEWEST), gains=(), better_than_uniform=None
    )
    return _answer(run, subject, reason=verdict.reason, decision=study, numbers=numbers)


def _merge(snapshot: Snapshot, key: str) -> _Subject:
    artifact = require(snapshot, ArtifactRecord, key, "artifact")
    study = require(snapshot, StudyRecord, artifact.study, "study")
    window = [require(snapshot, CheckpointRecord, c, "checkpoint") for c in study.checkpoints]
    return _Subject(
        artifact.manifest,
        f"/v1/artifacts/{key}/files",
        tuple(zip(window, artifact.weights.values, strict=True)),
        artifact=key,
    )


def _checkpoint(snapshot: Snapshot, key: str) -> _Subject:
    checkpoint = require(snapshot, CheckpointRecord, key, "checkpoint")
    return _Subject(checkpoint.manifest, f"/v1/checkpoints/{key}/files", ((checkpoint, 1.0),))


def _decision(snapshot: Snapshot, run: RunRecord, key: str) -> StudyRecord | None:
    """Return the study that promoted it; None of a checkpoint that a person alone made best."""
    if key == run.best and run.promotion is not None:
        return require(snapshot, StudyRecord, run.promotion, "study")
    found = snapshot.find(StudyRecord, run=run.name, state="decided", newest_first=True)
    return next((s for s in found if s.verdict is not None and s.verdict.best == key), None)


def _numbers(snapshot: Snapshot, run: RunRecord, key: str, decision: StudyRecord) -> Verdict | None:
    """Return a verdict that has its scores on the documents of the present era; None where none.

    What an earlier era promoted is scored by the studies of this one, as the best they must beat.
    """
    if decision.era == run.era:
        return decision.verdict
    for study in _decided_in_this_era(snapshot, run):
        verdict = study.verdict
        if verdict is not None and verdict.before == key:
            return replace(verdict, score=verdict.before_score, gains=(), better_than_uniform=None)
    return None


def _decided_in_this_era(snapshot: Snapshot, run: RunRecord) -> Iterator[StudyRecord]:
    """Yield the decided studies on the documents that judge the run now, newest first."""
    found = snapshot.find(StudyRecord, run=run.name, state="decided", newest_first=True)
    return (study for study in found if study.era == run.era)


def _pinned(run: RunRecord) -> list[str]:
    return [] if run.pin is None else [f"pinned by hand: {run.pin.reason}"]


def _decided(run: RunRecord, decision: StudyRecord | None, *, measured: bool) -> list[str]:
    if decision is None or decision.verdict is None:
        return []
    if decision.era == run.era:
        return [decision.verdict.reason]
    now = "nothing was shown better" if measured else "it was not measured yet"
    return [
        f"{decision.verdict.reason} (in era {decision.era})",
        f"on the documents of era {run.era} {now}",
    ]


def _answer(
    run: RunRecord,
    subject: _Subject,
    *,
    reason: str,
    decision: StudyRecord | None = None,
    numbers: Verdict | None = None,
    promoted: bool = False,
) -> wire.Best:
    """Write it as JSON: who decided is ``decision``, what was measured are ``numbers``."""
    made = None if decision is None else decision.verdict
    tests = [] if made is None else verdict_resource(made).tests
    shown = None if numbers is None else verdict_resource(numbers)
    newest = subject.weighed[-1][0]
    return wire.Best(
        run=run.name,
        kind="checkpoint" if subject.artifact is None else "merge",
        promoted=promoted,
        pinned=None
        if run.pin is None
        else wire.Pinned(reason=run.pin.reason, at=timestamp(run.pin.at)),
        reason=reason,
        artifact=subject.artifact,
        digest=str(subject.manifest.digest),
        step=newest.step,
        tokens=newest.tokens,
        study=None if decision is None else decision.id,
        era=None if decision is None else decision.era,
        stopped="" if decision is None else decision.stopped or "",
        weights=[
            wire.Weight(checkpoint=c.id, attempt=c.attempt, step=c.step, weight=weight)
            for c, weight in subject.weighed
        ],
        groups=None,
        score=None if shown is None else shown.score,
        baselines={} if shown is None else shown.baselines,
        gains=[] if shown is None else shown.gains,
        better_than_uniform=None if shown is None else shown.better_than_uniform,
        certificate=tests[-1] if tests else None,
        tests=tests,
        passes=None if shown is None else shown.passes,
        files=files_of(subject.manifest, subject.href),
    )
