"""What the service answers: records as the JSON that people and programs read."""

import math
from datetime import UTC, datetime

from ckptmerge.config.study import StudySpec as StudyFile
from ckptmerge.domain.checkpoint import Manifest
from ckptmerge.storage.records import (
    ArtifactRecord,
    CheckpointRecord,
    EventRecord,
    HeldOutRecord,
    RunRecord,
    StudyRecord,
    TaskRecord,
    Verdict,
)
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire import best as wire
from ckptmerge.wire.checkpoints import CheckpointResource
from ckptmerge.wire.resource import File
from ckptmerge.wire.runs import RunResource, WindowPolicySpec
from ckptmerge.wire.studies import EventResource, StudyResource, TrialResource, VerdictResource
from ckptmerge.workflow.stored import StoredStudy, require


def checkpoint_resource(record: CheckpointRecord) -> CheckpointResource:
    """Describe a checkpoint."""
    manifest = record.manifest
    return CheckpointResource(
        id=record.id,
        run=record.run,
        attempt=record.attempt,
        step=record.step,
        tokens=record.tokens,
        digest=str(manifest.digest),
        content=str(manifest.content),
        state="incomplete" if record.missing else "complete",
        missing=list(record.missing),
        parameters=manifest.parameters,
        bytes=manifest.bytes,
        created=timestamp(record.created),
        files=files_of(manifest, f"/v1/checkpoints/{record.id}/files"),
    )


def run_resource(snapshot: Snapshot, record: RunRecord) -> RunResource:
    """Describe a run."""
    held_out = require(snapshot, HeldOutRecord, record.held_out, "held-out set")
    return RunResource(
        name=record.name,
        held_out=record.held_out,
        held_out_digest=str(held_out.digest),
        era=record.era,
        attempt=record.attempt,
        checkpoints=snapshot.count(CheckpointRecord, run=record.name),
        study=StudyFile.model_validate(dict(record.study)),
        window=WindowPolicySpec(
            size=record.window.size, every=record.window.every, minimum=record.window.minimum
        ),
        files={file.name: str(file.digest) for file in record.files},
        created=timestamp(record.created),
    )


def study_resource(snapshot: Snapshot, record: StudyRecord) -> StudyResource:
    """Describe a study."""
    tasks = [t for t in snapshot.find(TaskRecord, study=record.id) if t.task.trial is not None]
    checkpoints = [require(snapshot, CheckpointRecord, c, "checkpoint") for c in record.checkpoints]
    return StudyResource(
        id=record.id,
        run=record.run,
        era=record.era,
        state=record.state.value,
        stopped=record.stopped,
        checkpoints=list(record.checkpoints),
        steps=[checkpoint.step for checkpoint in checkpoints],
        space=record.spec.space.kind,
        lower=list(record.spec.space.lower),
        upper=list(record.spec.space.upper),
        budget=record.spec.budget,
        seed=record.spec.seed,
        dtype=record.spec.dtype,
        trials=len(tasks),
        observed=sum(task.observation is not None for task in tasks),
        winner=record.winner,
        verdict=None if record.verdict is None else _verdict(record.verdict),
        created=timestamp(record.created),
    )


def trial_resources(stored: StoredStudy) -> list[TrialResource]:
    """Describe a study's trials, in the order in which they were proposed."""
    return [
        _trial(trial.state.value, stored.of_trial(trial.index)) for trial in stored.study.trials
    ]


def best_of(snapshot: Snapshot, record: RunRecord) -> wire.Best | None:
    """Answer "what are the best weights of this run"; None while there are none at all."""
    if record.best is not None and record.best.startswith("a_"):
        return _promoted(snapshot, record, record.best)
    if record.best is not None:
        return _overtaken(snapshot, record, record.best)
    found = snapshot.find(CheckpointRecord, run=record.name, newest_first=True)
    usable = [c for c in found if c.attempt == record.attempt and not c.missing]
    if not usable:
        return None
    newest = max(usable, key=lambda checkpoint: checkpoint.step)
    study = _last_decided(snapshot, record)
    verdict = None if study is None else study.verdict
    covers = study is not None and newest.id == study.checkpoints[-1]
    reason = "no study of this run has been decided yet; this is its newest checkpoint"
    if verdict is not None:
        reason = (
            verdict.reason if covers else f"newest checkpoint; the last study: {verdict.reason}"
        )
    return _answer(
        record,
        kind="checkpoint",
        manifest=newest.manifest,
        href=f"/v1/checkpoints/{newest.id}/files",
        reason=reason,
        newest=newest,
        study=study if covers else None,
        weighed=[(newest, 1.0)],
    )


def _overtaken(snapshot: Snapshot, record: RunRecord, key: str) -> wire.Best:
    """Answer with the checkpoint that was shown better than the merge before it."""
    checkpoint = require(snapshot, CheckpointRecord, key, "checkpoint")
    study = require(snapshot, StudyRecord, record.promotion or "", "study")
    reason = study.verdict.reason if study.verdict is not None else ""
    return _answer(
        record,
        kind="checkpoint",
        manifest=checkpoint.manifest,
        href=f"/v1/checkpoints/{checkpoint.id}/files",
        reason=reason,
        newest=checkpoint,
        study=study,
        weighed=[(checkpoint, 1.0)],
        promoted=True,
    )


def _promoted(snapshot: Snapshot, record: RunRecord, key: str) -> wire.Best:
    """Answer with the merge that was promoted."""
    artifact = require(snapshot, ArtifactRecord, key, "artifact")
    study = require(snapshot, StudyRecord, artifact.study, "study")
    window = [require(snapshot, CheckpointRecord, c, "checkpoint") for c in study.checkpoints]
    reason = study.verdict.reason if study.verdict is not None else ""
    return _answer(
        record,
        kind="merge",
        manifest=artifact.manifest,
        href=f"/v1/artifacts/{artifact.id}/files",
        reason=reason,
        newest=window[-1],
        study=study,
        weighed=list(zip(window, artifact.weights.values, strict=True)),
        artifact=artifact.id,
    )


def _answer(
    record: RunRecord,
    *,
    kind: str,
    manifest: Manifest,
    href: str,
    reason: str,
    newest: CheckpointRecord,
    study: StudyRecord | None,
    weighed: list[tuple[CheckpointRecord, float]],
    artifact: str | None = None,
    promoted: bool = False,
) -> wire.Best:
    verdict = None if study is None or study.verdict is None else _verdict(study.verdict)
    return wire.Best.model_validate(
        {
            "run": record.name,
            "kind": kind,
            "promoted": promoted or artifact is not None,
            "reason": reason,
            "artifact": artifact,
            "digest": str(manifest.digest),
            "step": newest.step,
            "tokens": newest.tokens,
            "study": None if study is None else study.id,
            "stopped": "" if study is None else study.stopped or "",
            "weights": [
                wire.Weight(checkpoint=c.id, attempt=c.attempt, step=c.step, weight=value)
                for c, value in weighed
            ],
            "groups": None,
            "score": None if verdict is None else verdict.score,
            "baselines": {} if verdict is None else verdict.baselines,
            "gains": [] if verdict is None else verdict.gains,
            "better_than_uniform": None if verdict is None else verdict.better_than_uniform,
            "certificate": verdict.tests[-1] if verdict is not None and verdict.tests else None,
            "tests": [] if verdict is None else verdict.tests,
            "passes": None if verdict is None else verdict.passes,
            "files": files_of(manifest, href),
        }
    )


def event_resource(record: EventRecord) -> EventResource:
    """Describe an event."""
    return EventResource(
        id=record.id,
        run=record.run,
        kind=record.kind,
        data=dict(record.data),
        at=timestamp(record.created),
    )


def files_of(manifest: Manifest, href: str) -> list[File]:
    """Describe a manifest's files, each to be had beneath ``href``."""
    return [
        File(name=f.name, size=f.size, digest=str(f.digest), href=f"{href}/{f.name}")
        for f in manifest.files
    ]


def timestamp(seconds: float) -> str:
    """Write a time as RFC 3339 does, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _verdict(verdict: Verdict) -> VerdictResource:
    return VerdictResource(
        promoted=verdict.best is not None,
        artifact=verdict.best,
        reason=verdict.reason,
        tests=[wire.Certificate.of(certificate) for certificate in verdict.certificates],
        score=None if verdict.score is None else wire.Score.of(verdict.score),
        baselines={name: wire.Score.of(score) for name, score in verdict.baselines.items()},
        gains=[wire.Gain.of(gain) for gain in verdict.gains],
        better_than_uniform=(
            None
            if verdict.better_than_uniform is None
            else wire.Gain.of(verdict.better_than_uniform)
        ),
        passes=wire.Passes.model_validate(dict(verdict.passes)),
    )


def _trial(state: str, record: TaskRecord) -> TrialResource:
    task, seen = record.task, record.observation
    return TrialResource.model_validate(
        {
            "trial": task.trial,
            "name": record.baseline,
            "weights": [] if task.order.weights is None else list(task.order.weights.values),
            "state": state,
            "value": None if seen is None else seen.value,
            "standard_error": None if seen is None else math.sqrt(seen.variance),
            "reason": task.reason,
            "reused": record.reused,
            "worker": task.worker,
            "attempts": task.fence,
            "seconds": {} if task.outcome is None else dict(task.outcome.seconds),
        }
    )


def _last_decided(snapshot: Snapshot, record: RunRecord) -> StudyRecord | None:
    found = snapshot.find(StudyRecord, run=record.name, state="decided", newest_first=True, limit=1)
    return found[0] if found else None
