"""All of it in one process: from checkpoints and held-out documents to certified bytes."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ckptmerge.domain.artifact import Artifact
from ckptmerge.domain.baselines import midpoint
from ckptmerge.domain.checkpoint import Checkpoint
from ckptmerge.domain.observation import Objective, Split
from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.run import name_from
from ckptmerge.domain.space import SpaceKind
from ckptmerge.domain.study import Study
from ckptmerge.domain.trial import Trial
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import NonFiniteLossError
from ckptmerge.evaluation.barrier import require_no_barrier
from ckptmerge.evaluation.documents import load_held_out
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.formats.claim import ClaimedFolder
from ckptmerge.workflow.ask import Proposer, Stop, ask
from ckptmerge.workflow.assess import WindowEvaluator
from ckptmerge.workflow.audit import Audit, audit, averages
from ckptmerge.workflow.decide import best_uniform, decide, parent_of, rivals
from ckptmerge.workflow.judge import Judge
from ckptmerge.workflow.looks import LookLog
from ckptmerge.workflow.materialise import materialise, weight_bytes
from ckptmerge.workflow.open_studies import open_study
from ckptmerge.workflow.outcome import OptimizedStudy
from ckptmerge.workflow.progress import Progress, Silent
from ckptmerge.workflow.proposer_process import ProposerProcess
from ckptmerge.workflow.register import register_in_order
from ckptmerge.workflow.tell import tell


def optimize(
    checkpoints: Sequence[str | Path],
    *,
    held_out: str | Path,
    space: SpaceKind = "simplex",
    budget: int = 24,
    seed: int = 0,
    lower: float | None = None,
    upper: float | None = None,
    dtype: OutputDtype = "keep",
    objective: Objective | None = None,
    context: int | None = None,
    tokenizer: str | Path | None = None,
    device: str = "cpu",
    run: str | None = None,
    looks: str | Path | None = None,
    scratch: str | Path | None = None,
    proposer: Proposer | None = None,
    progress: Progress | None = None,
) -> OptimizedStudy:
    """Find the best merge of checkpoints, and show on unseen documents that its bytes are better.

    Args:
        checkpoints: Hugging Face-layout folders of one run, two or more.
        held_out: ``.jsonl`` or ``.txt`` documents; half are searched on, a quarter decide, a
            quarter report.
        space: ``pair`` or ``simplex``.
        budget: forward passes over the search half, all of the checkpoints themselves included.
        seed: fixes every random choice.
        lower: smallest weight; a negative one allows extrapolation.
        upper: largest weight.
        dtype: dtype of the merge; candidates are scored rounded to it.
        objective: domain weights and limits.
        context: longest passage scored, in tokens.
        tokenizer: folder of the tokenizer, where the checkpoints bring none.
        device: where candidates are scored, ``cpu`` or ``cuda:0``.
        run: name under which tests on this held-out set are counted; the name of the folder that
            holds the newest checkpoint by default.
        looks: log of looks, ``<held_out>.looks.jsonl`` by default.
        scratch: folder for the merge until it is published; the system's by default.
        proposer: names candidates; the Bayesian proposer in a child process by default.
        progress: hears how far the work is.

    Raises:
        InvalidInputError: an input cannot be used; nothing was written.
        BarrierError: the checkpoints do not merge.
    """
    progress = Silent() if progress is None else progress
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    documents = load_held_out(Path(held_out))
    progress.stage("verifying checkpoints", sum(map(weight_bytes, paths)))
    study = open_study(
        register_in_order(paths, on_bytes=progress.advance),
        space=space, lower=lower, upper=upper, budget=budget, seed=seed, dtype=dtype,
        objective=objective,
    )  # fmt: skip
    newest = folder_of(study.window.newest)
    log = LookLog.for_set(documents.digest, Path(held_out), named=looks)
    name = log.run(run_name(newest) if run is None else run).name
    progress.stage("loading", len(study.window))
    judge = Judge(
        documents,
        WindowEvaluator(
            [folder_of(c) for c in study.window], device=torch.device(device), dtype=dtype
        ),
        tokenizer=newest if tokenizer is None else Path(tokenizer),
        context=context,
        device=torch.device(device),
        on_pass=progress.advance,
    )
    if proposer is None:
        with ProposerProcess() as process:
            study = search(study, judge, process.propose, progress)
    else:
        study = search(study, judge, proposer, progress)
    parent = Path(tempfile.gettempdir() if scratch is None else scratch)
    uncertified = ClaimedFolder(parent, ".ckptmerge-uncertified-")
    try:
        promotion = _Promotion(
            study, judge, log=log, run=name, scratch=uncertified.path, progress=progress
        )
        decision = decide(
            study,
            held_out=documents.digest,
            materialise=promotion.write,
            test_number=promotion.count,
            losses=promotion.losses,
            seed=seed,
        )
        folder = promotion.folder(decision.artifact)
        report = report_audit(study, judge, folder, progress)
    except BaseException:
        uncertified.remove()
        raise
    return OptimizedStudy(
        run=name,
        study=decision.study,
        decision=decision,
        audit=report,
        held_out=documents.digest,
        passes=judge.passes,
        folder=folder,
        scratch=uncertified,
    )


def run_name(newest: Path) -> str:
    """Name a run after the folder that holds its checkpoints."""
    return name_from(newest.resolve().parent.name)


def folder_of(checkpoint: Checkpoint) -> Path:
    """Return where a checkpoint of this machine lies: in one process its label is its path."""
    return Path(checkpoint.label)


def search(study: Study, judge: Judge, proposer: Proposer, progress: Progress) -> Study:
    """Ask, assess and tell until the search ends; return the study with its winner frozen.

    Raises:
        BarrierError: the checkpoints do not merge.
        ModelLoadError: the model in memory is not what its files are.
    """
    newest = MergeWeights.vertex(len(study.window), -1)
    judge.check_load(newest, folder_of(study.window.newest))
    progress.stage("searching", study.spec.budget + 1)
    variance: float | None = None
    preflight = _Preflight(len(study.window), study.spec.objective)
    while not isinstance(step := ask(study, proposer), Stop):
        study, trial = step
        try:
            scores = judge.candidate(trial.weights, Split.SEARCH)
        except NonFiniteLossError as error:
            study = study.tell_infeasible(trial.index, str(error))
            continue
        if variance is None:
            variance = judge.kernel_noise(trial.weights, scores, study.spec.objective)
        study = tell(study, trial.index, scores, variance=variance)
        preflight.see(trial.weights, scores)
    return study.freeze(step.winner, step.reason)


class _Preflight:
    """Looks for a barrier as soon as both ends of the window and their midpoint were scored."""

    def __init__(self, size: int, objective: Objective) -> None:
        self._objective = objective
        self._roles = {
            MergeWeights.vertex(size, 0): "oldest",
            MergeWeights.vertex(size, -1): "newest",
            midpoint(size): "midpoint",
        }
        self._seen: dict[str, DocumentScores] = {}

    def see(self, weights: MergeWeights, scores: DocumentScores) -> None:
        """Take a candidate's scores.

        Raises:
            BarrierError: these three show that the checkpoints do not merge.
        """
        role = self._roles.get(weights)
        if role is None or role in self._seen:
            return
        self._seen[role] = scores
        if len(self._seen) == len(self._roles):
            require_no_barrier(**self._seen, objective=self._objective)


class _Promotion:
    """What ``decide`` asks for, done on this machine."""

    def __init__(
        self,
        study: Study,
        judge: Judge,
        *,
        log: LookLog,
        run: str,
        scratch: Path,
        progress: Progress,
    ) -> None:
        self._study = study
        self._judge = judge
        self._log = log
        self._run = run
        self._scratch = scratch
        self._progress = progress
        self._folders: dict[Artifact, Path] = {}
        self._rivals = {name: parent_of(study, trial) for name, trial in rivals(study).items()}

    def folder(self, artifact: Artifact | None) -> Path | None:
        """Return where an artifact was written."""
        return None if artifact is None else self._folders[artifact]

    def write(self, name: str, trial: Trial) -> Artifact:
        """Write a claim's bytes, and check that they are what was searched."""
        self._progress.stage(f"writing the {name}", self._study.window.newest.manifest.bytes)
        folder = self._scratch / name
        artifact = materialise(
            self._study.window, trial.weights, folder, dtype=self._study.spec.dtype,
            on_bytes=self._progress.advance,
        )  # fmt: skip
        self._folders[artifact] = folder
        self._judge.check_load(trial.weights, folder)
        return artifact

    def count(self, artifact: Artifact) -> int:
        """Record that these bytes are tested, and return the test's number."""
        return self._log.test(
            self._run,
            subject=artifact.digest,
            rivals=[checkpoint.manifest.digest for checkpoint in self._rivals.values()],
        )

    def losses(self, artifact: Artifact) -> tuple[DocumentScores, Mapping[str, DocumentScores]]:
        """Score the bytes and every rival's on the certify split."""
        self._progress.stage("certifying", 1 + len(self._rivals))
        return self._judge.files(self._folders[artifact], Split.CERTIFY), {
            name: self._judge.files(folder_of(checkpoint), Split.CERTIFY)
            for name, checkpoint in self._rivals.items()
        }


def report_audit(study: Study, judge: Judge, folder: Path | None, progress: Progress) -> Audit:
    """Score the promoted bytes, their rivals and the baselines on the audit split."""
    parents = {name: parent_of(study, trial) for name, trial in rivals(study).items()}
    readers: dict[str, Callable[[], DocumentScores]] = {
        name: lambda checkpoint=checkpoint: judge.files(folder_of(checkpoint), Split.AUDIT)
        for name, checkpoint in parents.items()
    }
    readers |= {
        name: lambda weights=weights: judge.candidate(weights, Split.AUDIT)
        for name, weights in averages(study).items()
    }
    uniform = best_uniform(study)
    progress.stage("auditing", len(readers) + (folder is not None))
    return audit(
        subject=None if folder is None else judge.files(folder, Split.AUDIT),
        baselines={name: read() for name, read in readers.items()},
        rivals=tuple(parents),
        best_uniform=None if uniform is None else uniform.name,
        objective=study.spec.objective,
        seed=study.spec.seed,
    )
