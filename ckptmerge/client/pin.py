"""Put something in the place of a run's best, named the way people name it."""

import re
from urllib.parse import quote

from ckptmerge.client.answer import read_answer
from ckptmerge.client.session import Session
from ckptmerge.errors import InvalidInputError
from ckptmerge.wire.best import Best, NewPin
from ckptmerge.wire.checkpoints import CheckpointResource

_STEP = re.compile(r"step-([0-9]{1,16})")


def pin(session: Session, run: str, revision: str, *, reason: str) -> Best:
    """Make a revision the best of a run by hand, and return the best as it is then.

    Args:
        session: Speaks to the service.
        run: Name of the run.
        revision: ``step-N`` for a checkpoint, or the id of a checkpoint or artifact.
        reason: Why; it is shown with the best.

    Raises:
        InvalidInputError: it names no revision, or there is no reason.
        ServiceError: the service refuses, stays busy, or cannot be reached.
    """
    if not reason.strip() or len(reason) > 1000:
        raise InvalidInputError("say in up to 1000 characters why the best is pinned")
    path = f"/v1/runs/{quote(run, safe='')}"
    step = _STEP.fullmatch(revision)
    if step is not None:
        answer = session.json("GET", f"{path}/checkpoints/{int(step[1])}")
        new = NewPin(checkpoint=read_answer(CheckpointResource, answer).id, reason=reason)
    elif revision.startswith("c_"):
        new = NewPin(checkpoint=revision, reason=reason)
    elif revision.startswith("a_"):
        new = NewPin(artifact=revision, reason=reason)
    else:
        raise InvalidInputError(
            f"{revision!r} names nothing that can be pinned; use step-N, or the id of a "
            "checkpoint (c_…) or artifact (a_…)"
        )
    return read_answer(Best, session.json("POST", f"{path}/best", new))
