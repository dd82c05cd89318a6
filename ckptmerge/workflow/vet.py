"""Look at what a worker hands in before it counts.

A worker may run anywhere and on anything, so what it sends is read with the same care as what
anybody else sends: scores that are none, that are of other documents, or that no model can have
must neither enter the search nor end it.
"""

from dataclasses import replace

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.task import Outcome, Task, TaskKind, TaskState
from ckptmerge.errors import HeldOutSetError, InvalidInputError, MissingError, NonFiniteLossError
from ckptmerge.evaluation.scores import DocumentScores, require_losses, require_same_documents
from ckptmerge.storage.blobs import BlobStore, read
from ckptmerge.storage.records import TaskRecord
from ckptmerge.storage.store import Snapshot
from ckptmerge.workflow.blob_files import manifest_of_blobs

LARGEST_SCORES = 2**28
"""Bytes of a file of scores: a few million documents. It is read into memory whole."""


def vet(blobs: BlobStore, task: Task, outcome: Outcome) -> Outcome:
    """Return the outcome as it may count: infeasible where its losses are not finite.

    Raises:
        MissingError: a blob was not uploaded; upload it, and hand the outcome in again.
        InvalidInputError: it is not what the task asked for, and no other try of the same will be.
    """
    _require_there(blobs, outcome)
    if outcome.status != "ok":
        return outcome
    if task.kind is TaskKind.MATERIALISE:
        manifest_of_blobs(blobs, outcome.files)
        return outcome
    if outcome.scores is None:
        raise InvalidInputError(f"{task.name} was to be scored, and comes without scores")
    if task.order.repeat and outcome.repeated is None:
        raise InvalidInputError(f"{task.name} was to be scored twice, and comes with scores of one")
    found = [
        DocumentScores.from_bytes(read(blobs, digest))
        for digest in (outcome.scores, outcome.repeated)
        if digest is not None
    ]
    try:
        for scores in found:
            require_losses(scores)
    except NonFiniteLossError as error:
        return replace(outcome, status="infeasible", reason=str(error), scores=None, repeated=None)
    require_same_documents(found[0], found[-1])
    return outcome


def require_same_as_others(
    snapshot: Snapshot, blobs: BlobStore, task: Task, outcome: Outcome
) -> None:
    """Check that scores are of the documents that the study's other models were scored on.

    Raises:
        HeldOutSetError: they are not, so nothing could be compared.
    """
    if outcome.scores is None:
        return
    others = snapshot.find(TaskRecord, study=task.study, state=TaskState.DONE)
    known = next((digest for record in others if (digest := _scored(record, task))), None)
    if known is None or known == outcome.scores:
        return
    try:
        require_same_documents(
            DocumentScores.from_bytes(read(blobs, outcome.scores)),
            DocumentScores.from_bytes(read(blobs, known)),
        )
    except HeldOutSetError as error:
        raise HeldOutSetError(f"{task.name} cannot be compared with others: {error}") from error


def _scored(record: TaskRecord, task: Task) -> Digest | None:
    """Return the scores of another task on the same documents."""
    if record.id == task.id or record.task.order.split is not task.order.split:
        return None
    return None if record.task.outcome is None else record.task.outcome.scores


def _require_there(blobs: BlobStore, outcome: Outcome) -> None:
    """Check that the blobs that an outcome names were uploaded.

    Raises:
        MissingError: one was not.
        InvalidInputError: one is too large for what it should be.
    """
    for digest in (outcome.scores, outcome.repeated):
        size = 0 if digest is None else blobs.size(digest)
        if size is None:
            raise MissingError(f"blob {digest} was not uploaded; send it, and the outcome again")
        if size > LARGEST_SCORES:
            raise InvalidInputError(f"blob {digest} is no file of scores: it has {size} bytes")
    for file in outcome.files:
        if blobs.size(file.digest) != file.size:
            raise MissingError(
                f"blob {file.digest} ({file.name}) was not uploaded; send it, and the outcome again"
            )
