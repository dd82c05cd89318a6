"""Claims are tested in a fixed order on bytes, and only shown gains promote."""

from collections.abc import Mapping

import numpy as np
import pytest

from ckptmerge.domain.artifact import Artifact
from ckptmerge.domain.checkpoint import Checkpoint, FileEntry, Manifest, TensorEntry, TensorSpec
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Objective, Observation
from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.study import Study, StudyState
from ckptmerge.domain.trial import Trial
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import IllegalTransitionError
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.workflow.decide import Decision, claims, decide, rivals
from ckptmerge.workflow.open_studies import open_study

DOCUMENTS = 60
SEARCHED = {"newest": 2.0, "previous": 2.1, "oldest": 2.4, "uniform-2": 1.95, "uniform-3": 1.9}


def scores(shift: float, *, documents: int = DOCUMENTS, noise: int = 0) -> DocumentScores:
    """Losses of a model that is ``shift`` nats a byte worse than the reference, give or take."""
    rng = np.random.default_rng(7)
    sizes = rng.integers(80, 120, documents)
    own = np.random.default_rng(noise).normal(0, 0.01, documents) if noise else 0.0
    return DocumentScores(
        nats=sizes * (rng.uniform(1.0, 2.0, documents) + shift + own),
        bytes=sizes.astype(np.int64),
        tokens=sizes.astype(np.int64),
        domains=("text",) * documents,
        units=tuple(map(str, range(documents))),
    )


def searched(values: Mapping[str, float] = SEARCHED, winner: float | None = 1.85) -> Study:
    """A frozen study over three checkpoints whose search saw these values."""
    entry = TensorEntry(TensorSpec("w", "F32", (2,)), "m", 0, Digest.of_bytes(b"w"))
    window = [Checkpoint(f"step-{i}", i, Manifest((), (entry,))) for i in (1, 2, 3)]
    study = open_study(window)
    weights = {
        "newest": MergeWeights.vertex(3, -1),
        "previous": MergeWeights.vertex(3, -2),
        "oldest": MergeWeights.vertex(3, 0),
        "uniform-2": MergeWeights.uniform(3, 2),
        "uniform-3": MergeWeights.uniform(3),
    }
    rows = [(weights[name], name, value) for name, value in values.items()]
    if winner is not None:
        rows.append((MergeWeights.of(0.2, 0.3, 0.5), None, winner))
    for row, name, value in rows:
        study = study.propose(row, name).tell(len(study.trials), Observation(value, 0.0))
    best = min(range(len(rows)), key=lambda i: rows[i][2])
    return study.freeze(best, "enough")


class Bytes:
    """Stands in for files and models: each claim has losses of its own on the certify split."""

    def __init__(self, subjects: Mapping[str, DocumentScores], newest: DocumentScores) -> None:
        self.subjects = subjects
        self.newest = newest
        self.log: list[str] = []
        self._name = ""

    def write(self, name: str, trial: Trial) -> Artifact:
        self.log.append(f"write {name}")
        self._name = name
        digest = Digest.of_bytes(name.encode())
        recipe = Recipe((digest,) * len(trial.weights), trial.weights)
        return Artifact(recipe, Manifest((FileEntry(name, 1, digest),), ()))

    def count(self, artifact: Artifact) -> int:
        self.log.append(f"count {artifact.manifest.files[0].name}")
        return sum(entry.startswith("count") for entry in self.log)

    def losses(self, artifact: Artifact) -> tuple[DocumentScores, Mapping[str, DocumentScores]]:
        self.log.append(f"read {artifact.manifest.files[0].name}")
        return self.subjects[self._name], {"newest": self.newest}

    def decide(self, study: Study) -> Decision:
        return decide(
            study,
            held_out=Digest.of_bytes(b"held out"),
            materialise=self.write,
            test_number=self.count,
            losses=self.losses,
            seed=0,
        )


def test_a_clear_winner_is_promoted_with_its_certificate() -> None:
    files = Bytes({"winner": scores(-0.05, noise=1)}, scores(0.0))
    decision = files.decide(searched())
    assert decision.best is not None
    assert decision.best.weights == MergeWeights.of(0.2, 0.3, 0.5)
    assert decision.certificates[0].passed
    assert decision.study.state is StudyState.DECIDED
    assert files.log == ["write winner", "count winner", "read winner"], "counted before it is read"


def test_a_failed_winner_falls_back_to_the_uniform_average_at_the_next_level() -> None:
    files = Bytes(
        {"winner": scores(0.001, noise=1), "uniform-3": scores(-0.05, noise=2)}, scores(0.0)
    )
    decision = files.decide(searched())
    assert decision.best is not None
    assert decision.best.name == "uniform-3"
    assert [made.test for made in decision.certificates] == [1, 2]
    assert decision.certificates[1].alpha < decision.certificates[0].alpha


def test_nothing_better_means_nothing_promoted_and_the_reason_is_said() -> None:
    files = Bytes(
        {"winner": scores(0.001, noise=1), "uniform-3": scores(0.002, noise=2)}, scores(0.0)
    )
    decision = files.decide(searched())
    assert decision.best is None
    assert "uniform-3 was not shown better than newest" in decision.reason


def test_equal_bytes_are_never_promoted() -> None:
    decision = Bytes({"winner": scores(0.0), "uniform-3": scores(0.0)}, scores(0.0)).decide(
        searched()
    )
    assert decision.best is None


def test_a_claim_that_the_search_contradicts_spends_no_test() -> None:
    worse = {**SEARCHED, "uniform-2": 2.05, "uniform-3": 2.2}
    files = Bytes({}, scores(0.0))
    decision = files.decide(searched(worse, winner=None))
    assert files.log == []
    assert decision.certificates == ()
    assert "no merge beat the newest checkpoint on the search split" in decision.reason


def test_too_few_documents_certify_nothing_however_large_the_gain() -> None:
    subjects = {
        "winner": scores(-0.5, documents=20, noise=1),
        "uniform-3": scores(-0.5, documents=20, noise=2),
    }
    decision = Bytes(subjects, scores(0.0, documents=20)).decide(searched())
    assert decision.best is None
    assert "20 independent documents" in decision.reason


def test_the_best_parent_is_a_rival_where_it_is_not_the_newest() -> None:
    spike = {**SEARCHED, "newest": 2.5}
    assert set(rivals(searched(spike))) == {"newest", "best parent (step 2)"}
    assert set(rivals(searched())) == {"newest"}


def test_a_claim_must_beat_the_best_parent_on_search_too() -> None:
    spike = {"newest": 2.5, "previous": 1.8, "oldest": 2.4, "uniform-2": 1.95, "uniform-3": 1.9}
    files = Bytes({}, scores(0.0))
    assert files.decide(searched(spike, winner=1.85)).certificates == ()


def test_an_unmeasured_checkpoint_forbids_promotion() -> None:
    unmeasured = {name: value for name, value in SEARCHED.items() if name != "previous"}
    with pytest.raises(IllegalTransitionError, match="1 checkpoints of the window"):
        rivals(searched(unmeasured))


def test_a_uniform_winner_is_claimed_once() -> None:
    assert [name for name, _ in claims(searched(winner=None))] == ["winner"]


def test_a_broken_limit_on_a_domain_forbids_promotion() -> None:
    study = searched()
    limited = open_study(study.window.checkpoints, objective=Objective(limits={"text": 0.0}))
    for trial in study.trials:
        assert trial.observation is not None
        limited = limited.propose(trial.weights, trial.name).tell(trial.index, trial.observation)
    limited = limited.freeze(study.winner or 0, "enough")
    slightly = scores(-0.0005, noise=3)
    files = Bytes({"winner": slightly, "uniform-3": slightly}, scores(0.0))
    assert files.decide(limited).best is None
