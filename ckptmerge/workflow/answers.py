"""What the service answers: records as the JSON that people and programs read."""

import math
from datetime import UTC, datetime
from typing import Literal

from ckptmerge.config.study import StudySpec as StudyFile
from ckptmerge.domain.checkpoint import Manifest
from ckptmerge.domain.study import StudyState
from ckptmerge.domain.task import Task
from ckptmerge.errors import MissingError
from ckptmerge.storage.records import (
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
from ckptmerge.wire.runs import RetentionSpec, RunResource, WindowPolicySpec
from ckptmerge.wire.studies import (
    EventResource,
    StudyResource,
    StudyTests,
    TrialResource,
    VerdictResource,
)
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
        state=_state(record),
        missing=list(record.missing),
        pinned=record.pinned,
        removed=None if record.removed is None else timestamp(record.removed),
        superseded_by=record.superseded_by,
        in_place=record.in_place,
        parameters=manifest.parameters,
        bytes=manifest.bytes,
        created=timestamp(record.created),
        files=files_of(manifest, f"/v1/checkpoints/{record.id}/files"),
    )


def _state(record: CheckpointRecord) -> Literal["complete", "incomplete", "removed"]:
    if record.removed is not None:
        return "removed"
    return "incomplete" if record.missing else "complete"


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
        retention=RetentionSpec.of(record.retention),
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
        verdict=None if record.verdict is None else verdict_resource(record.verdict),
        created=timestamp(record.created),
    )


def study_tests(record: StudyRecord) -> StudyTests:
    """Show the tests behind a study's verdict.

    Raises:
        MissingError: it has none, or not yet.
    """
    if record.verdict is None:
        going = record.state in {StudyState.SEARCHING, StudyState.FROZEN}
        raise MissingError(
            f"study {record.id} is {record.state}: nothing has been decided yet; ask again once it "
            "is decided"
            if going
            else f"study {record.id} was {record.state} ({record.stopped}), and never decided"
        )
    return StudyTests(
        study=record.id,
        run=record.run,
        era=record.era,
        promoted=record.verdict.best is not None,
        artifact=record.verdict.best,
        reason=record.verdict.reason,
        tests=[wire.Certificate.of(certificate) for certificate in record.verdict.certificates],
    )


def trial_resources(stored: StoredStudy) -> list[TrialResource]:
    """Describe a study's trials, in the order in which they were proposed."""
    return [
        _trial(trial.state.value, stored.of_trial(trial.index)) for trial in stored.study.trials
    ]


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


def verdict_resource(verdict: Verdict) -> VerdictResource:
    """Describe what a study came to."""
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


def _why(state: str, task: Task) -> str | None:
    """Say why a trial came to nothing, or why attempts at it did before it came to something."""
    if state == "infeasible" and task.outcome is not None:
        return task.outcome.reason
    return task.reason


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
            "reason": _why(state, task),
            "code": None if task.code is None else task.code.value,
            "log": task.log,
            "reused": record.reused,
            "worker": task.worker,
            "attempts": task.attempts,
            "seconds": {} if task.outcome is None else dict(task.outcome.seconds),
        }
    )
