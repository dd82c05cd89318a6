"""Watch a run at its service until training is over and its last window is decided."""

import time

from ckptmerge.cli import render
from ckptmerge.client.client import Client
from ckptmerge.domain.baselines import NEWEST
from ckptmerge.errors import ServiceError
from ckptmerge.wire.studies import StudyResource
from service.demo.processes import DemoFailedError, Serving, Training

_PERIOD = 0.5
"""Seconds between looks."""

_STALLED = 300.0
"""Seconds without any progress after which something must be wrong."""


def follow(
    client: Client, run: str, *, serving: Serving, training: Training, count: int
) -> list[StudyResource]:
    """Say what happens until ``count`` checkpoints were taken and all studies are over.

    Returns the studies, oldest first.

    Raises:
        DemoFailedError: training failed, or nothing moves any more.
    """
    said: set[str] = set()
    progress: object = None
    deadline = time.monotonic() + _STALLED
    with render.bars() as bars:
        bars.stage("checkpoints taken", count)
        taken = 0
        while True:
            serving.mind()
            over = training.over
            checkpoints, studies = _look(client, run)
            bars.advance(checkpoints - taken)
            taken = max(taken, checkpoints)
            for study in studies:
                if study.verdict is not None and study.id not in said:
                    said.add(study.id)
                    render.out.print(_line(study))
            if over and taken == count and _decided(studies, training):
                render.out.print(training.last_words)
                return studies
            now = (taken, over, [(s.state, s.observed, s.trials) for s in studies])
            if now != progress:
                progress, deadline = now, time.monotonic() + _STALLED
            if time.monotonic() > deadline:
                raise DemoFailedError(
                    f"nothing has moved for {_STALLED:.0f} s; look at {serving.log} and "
                    f"{training.log}"
                )
            time.sleep(_PERIOD)


def _look(client: Client, run: str) -> tuple[int, list[StudyResource]]:
    """Ask how far the run has come; a service that is just being started has nothing to say."""
    try:
        return client.run(run).checkpoints, list(client.studies(run))[::-1]
    except ServiceError as error:
        if error.status in {None, 404}:  # the run is made when training begins
            return 0, []
        raise


def _decided(studies: list[StudyResource], training: Training) -> bool:
    """Say whether the study over the last window is over."""
    if not studies:
        return False
    last = int(training.checkpoints[-1].name.rpartition("-")[2])
    newest = studies[-1]
    return newest.steps[-1] == last and newest.state not in {"searching", "frozen"}


def _line(study: StudyResource) -> str:
    """Tell a study's verdict in a line."""
    verdict = study.verdict
    if verdict is None:
        return f"{study.id} is {study.state}: {study.stopped}"
    window = f"study over steps {study.steps[0]} to {study.steps[-1]}"
    cost = f"{verdict.passes.search} passes"
    gain = next((gain for gain in verdict.gains if gain.against == NEWEST), None)
    if not verdict.promoted or gain is None:
        return f"{window}: after {cost}, {verdict.reason}"
    interval = "" if gain.low is None else f" [{gain.low:+.4f}, {gain.high:+.4f}]"
    return (
        f"{window}: promoted after {cost}; {gain.mean:+.4f}{interval} bits per byte over the "
        f"newest on {gain.documents} audit documents"
    )
