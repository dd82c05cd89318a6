"""7. Decide what is best: claims in a fixed order, each tested once on unseen documents.

The order is fixed before the certify split is read (contract: fixed sequence, alpha spent by every
test): first the winner of the search, then the uniform average best on search, each against the
newest checkpoint, the parent best on search, and the current best. A claim that the search itself
contradicts (a rival scored better there) is not tested, since it could only spend alpha.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ckptmerge.domain.artifact import Artifact
from ckptmerge.domain.baselines import NEWEST
from ckptmerge.domain.certificate import MINIMUM_UNITS, Certificate
from ckptmerge.domain.checkpoint import Checkpoint
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.study import Study
from ckptmerge.domain.trial import Trial
from ckptmerge.errors import IllegalTransitionError
from ckptmerge.evaluation.certificate import certify
from ckptmerge.evaluation.scores import DocumentScores

WINNER = "winner"


@dataclass(frozen=True)
class Decision:
    """What is best now, and every test that was made to find out."""

    study: Study
    best: Trial | None
    """The promoted merge; None leaves the current best as it is."""
    artifact: Artifact | None
    certificates: tuple[Certificate, ...]
    reason: str


def claims(study: Study) -> tuple[tuple[str, Trial], ...]:
    """Name the candidates to test, in order: the winner, then the best uniform average."""
    found: list[tuple[str, Trial]] = []
    if study.incumbent is not None:
        found.append((WINNER, study.incumbent))
    uniform = best_uniform(study)
    if uniform is not None and uniform is not study.incumbent:
        found.append((uniform.name or "", uniform))
    return tuple(found)


def best_uniform(study: Study) -> Trial | None:
    """Return the uniform average that is best on the search split."""
    uniforms = [t for t in study.observed if t.name is not None and t.name.startswith("uniform-")]
    return min(uniforms, key=_value, default=None)


def rivals(study: Study) -> dict[str, Trial]:
    """Return what every claim must beat: the newest checkpoint, and the best parent on search.

    One entry when the newest is the best parent.

    Raises:
        IllegalTransitionError: a checkpoint of the window was never measured.
    """
    parents = [t for t in study.observed if 1.0 in t.weights.values]
    newest = study.named(NEWEST)
    if newest is None or len(parents) < len(study.window):
        unusable = len(study.window) - len(parents)
        raise IllegalTransitionError(
            f"{unusable} checkpoints of the window have no finite score; "
            "a merge of them is not promoted"
        )
    best = min(parents, key=_value)
    found = {NEWEST: newest}
    if best is not newest:
        step = study.window.checkpoints[best.weights.values.index(1.0)].step
        found[f"best parent (step {step})"] = best
    return found


def parent_of(study: Study, trial: Trial) -> Checkpoint:
    """Return the checkpoint on which a trial puts all its weight."""
    return study.window.checkpoints[trial.weights.values.index(1.0)]


def decide(
    study: Study,
    *,
    held_out: Digest,
    materialise: Callable[[str, Trial], Artifact],
    test_number: Callable[[Artifact], int],
    losses: Callable[[Artifact], tuple[DocumentScores, Mapping[str, DocumentScores]]],
    seed: int,
) -> Decision:
    """Test the claims in order until one passes.

    For each claim ``materialise`` writes its bytes; ``test_number`` then records that a test is
    made and says which of the run's era it is; only after that ``losses`` reads the certify split,
    for those bytes and for every rival.
    """
    made: list[Certificate] = []
    lowest_rival = min(_value(trial) for trial in rivals(study).values())
    for name, trial in claims(study):
        if _value(trial) >= lowest_rival:
            continue
        artifact = materialise(name, trial)
        test = test_number(artifact)
        subject, against = losses(artifact)
        certificate = certify(
            subject,
            against,
            name=name,
            objective=study.spec.objective,
            test=test,
            held_out=held_out,
            artifact=artifact.digest,
            seed=seed,
        )
        made.append(certificate)
        if certificate.passed:
            return Decision(study.decide(), trial, artifact, tuple(made), _passed(certificate))
    return Decision(study.decide(), None, None, tuple(made), _refused(made))


def _passed(certificate: Certificate) -> str:
    against = " and ".join(gain.against for gain in certificate.gains)
    return f"{certificate.subject} beats {against} at alpha {certificate.alpha:.3g}"


def _refused(certificates: Sequence[Certificate]) -> str:
    if not certificates:
        return "nothing promoted: no merge beat the newest checkpoint on the search split"
    last = certificates[-1]
    if last.units < MINIMUM_UNITS:
        return (
            f"nothing promoted: {last.units} independent documents in the certify split are too "
            f"few to show anything; {MINIMUM_UNITS} are needed"
        )
    if last.worse_domains:
        return f"nothing promoted: not shown to keep the limit on {', '.join(last.worse_domains)}"
    return (
        f"nothing promoted: {last.subject} was not shown better than {last.gain.against} on unseen "
        f"documents (p {last.p:.3g}, alpha {last.alpha:.3g})"
    )


def _value(trial: Trial) -> float:
    return trial.observation.value if trial.observation is not None else float("inf")
