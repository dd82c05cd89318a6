"""Scores that are there already: one model on one split, by all that they depend on.

Windows overlap, so most checkpoints of a study were scored for the one before it, and its rivals'
files were too. The scores of the same bytes on the same documents are the same; measuring them
again would cost passes and tell nothing.
"""

import hashlib
import json
from dataclasses import replace

from ckptmerge.domain.checkpoint import Manifest
from ckptmerge.domain.task import Order, Outcome, TaskKind, TaskState
from ckptmerge.formats.side_files import is_side_file
from ckptmerge.storage.records import (
    ArtifactRecord,
    CheckpointRecord,
    HeldOutRecord,
    ScoresRecord,
    StudyRecord,
    TaskRecord,
)
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.workflow.stored import require


def find_scores(
    snapshot: Snapshot, study: StudyRecord, kind: TaskKind, order: Order
) -> Outcome | None:
    """Return what a task would come back with, where somebody has measured it before."""
    key = _key(snapshot, study, kind, order)
    known = None if key is None else snapshot.get(ScoresRecord, key)
    if known is None or (order.repeat and known.repeated is None):
        return None
    repeated = known.repeated if order.repeat else None
    return Outcome(status="ok", scores=known.scores, repeated=repeated)


def keep_scores(unit: Unit, record: TaskRecord, *, now: float) -> None:
    """Remember what a finished task measured, where another study may ask for the same."""
    outcome = record.task.outcome
    if record.state != TaskState.DONE or outcome is None or outcome.scores is None:
        return
    study = require(unit, StudyRecord, record.study, "study")
    key = _key(unit, study, TaskKind(record.kind), record.task.order)
    if key is None:
        return
    known = unit.get(ScoresRecord, key)
    if known is None:
        unit.insert(
            ScoresRecord(
                hex=key, scores=outcome.scores, repeated=outcome.repeated, created=now,
            )
        )  # fmt: skip
    elif known.repeated is None and outcome.repeated is not None:
        unit.update(replace(known, scores=outcome.scores, repeated=outcome.repeated))


def _key(snapshot: Snapshot, study: StudyRecord, kind: TaskKind, order: Order) -> str | None:
    """Digest all that the scores depend on; None where no other study will ask for them."""
    parts = _model(snapshot, study, kind, order)
    if parts is None or order.split is None:
        return None
    held_out = require(snapshot, HeldOutRecord, study.held_out, "held-out set")
    everything = [*parts, str(held_out.digest), order.split.value, study.context]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def _model(
    snapshot: Snapshot, study: StudyRecord, kind: TaskKind, order: Order
) -> list[object] | None:
    """Identify the model that is scored: a checkpoint's files, or its tensors within a window."""
    if kind is TaskKind.CERTIFY and order.subject is not None:
        return ["files", str(_manifest(snapshot, order.subject).digest)]
    if kind is not TaskKind.EVALUATE or order.weights is None:
        return None
    weighed = [index for index, weight in enumerate(order.weights.values) if weight]
    if len(weighed) > 1:
        return None
    tensors = _manifest(snapshot, study.checkpoints[weighed[0]]).content
    # In memory a model has the newest checkpoint's configuration and tokenizer, whatever its own.
    newest = _manifest(snapshot, study.checkpoints[-1])
    beside = [[file.name, str(file.digest)] for file in newest.files if is_side_file(file.name)]
    return ["tensors", str(tensors), study.spec.dtype, beside]


def _manifest(snapshot: Snapshot, key: str) -> Manifest:
    if key.startswith("a_"):
        return require(snapshot, ArtifactRecord, key, "artifact").manifest
    return require(snapshot, CheckpointRecord, key, "checkpoint").manifest
