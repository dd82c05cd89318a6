"""Check everything that the demo has said, from the bytes and the service's own records."""

from collections.abc import Sequence
from pathlib import Path

from ckptmerge.cli import render
from ckptmerge.client.client import Client
from ckptmerge.domain.baselines import NEWEST
from ckptmerge.wire.best import Best
from ckptmerge.wire.studies import StudyResource, TrialResource
from service.demo.processes import DemoFailedError

_AGREES = 1e-4
"""Bits per byte by which scoring the same bytes again may differ."""


def judge_run(
    client: Client,
    studies: Sequence[StudyResource],
    best: Best,
    champion: Path,
    *,
    held_out: Path,
) -> None:
    """Check the studies, the bytes and the numbers.

    Raises:
        DemoFailedError: something does not hold.
    """
    for study in studies:
        require_decided(study, list(client.trials(study.id)))
    require_bytes(best, champion)
    require_score(best, champion, held_out)
    require_confirmed(best)


def require_decided(study: StudyResource, trials: Sequence[TrialResource]) -> None:
    """Check that a study was decided, and that each candidate was observed exactly once.

    Raises:
        DemoFailedError: it was not, or an observation was lost or doubled.
    """
    if study.state != "decided":
        raise DemoFailedError(f"study {study.id} is {study.state}: {study.stopped}")
    seen = [trial.trial for trial in trials if trial.state == "observed"]
    if seen != list(range(study.trials)):
        raise DemoFailedError(f"study {study.id} has {study.trials} trials and observed {seen}")


def require_bytes(best: Best, champion: Path) -> None:
    """Check that the downloaded files are those that were certified.

    Raises:
        DemoFailedError: they are not.
    """
    from ckptmerge.formats.manifest import read_manifest

    digest = str(read_manifest(champion).digest)
    if digest != best.digest:
        raise DemoFailedError(f"{champion} has digest {digest}, promised was {best.digest}")


def require_score(best: Best, champion: Path, held_out: Path) -> None:
    """Check that the downloaded files score here what the service has said.

    Raises:
        DemoFailedError: they do not.
    """
    from ckptmerge.domain.observation import Split
    from ckptmerge.workflow.evaluate import evaluate

    again = evaluate(champion, held_out, split=Split.AUDIT).interval.mean
    if abs(again - said(best)) > _AGREES:
        raise DemoFailedError(f"{champion} scores {again:.5f}, said was {said(best):.5f}")


def said(best: Best) -> float:
    """Return the score that was reported, in bits per byte.

    Raises:
        DemoFailedError: none was.
    """
    if best.score is None:
        raise DemoFailedError("the study was decided without a score of what is best")
    return best.score.mean


def require_confirmed(best: Best) -> None:
    """Check that the audit split does not contradict what the certify split decided.

    The two are independent; where a small gain was certified, the audit alone may be too small to
    show it again. That is said, not hidden.

    Raises:
        DemoFailedError: on the audit split the merge is no better than the newest checkpoint.
    """
    for gain in best.gains:
        if gain.against == NEWEST and gain.mean <= 0:
            raise DemoFailedError(
                f"certified as better than the newest checkpoint, but {gain.mean:+.4f} bits per "
                "byte on the audit split"
            )
        if gain.against == NEWEST and (gain.low is None or gain.low <= 0):
            render.out.print(
                "The gain is small: the certify split showed it, the audit split alone would not "
                "(its interval holds zero)."
            )
