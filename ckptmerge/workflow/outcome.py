"""9. What came of a study, for people, programs and the disk."""

import json
import os
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ckptmerge.domain.certificate import Certificate
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.study import Study
from ckptmerge.domain.trial import Trial
from ckptmerge.errors import OutputExistsError, RefusedError
from ckptmerge.formats.claim import ClaimedFolder
from ckptmerge.wire import best as wire
from ckptmerge.wire.resource import File
from ckptmerge.workflow.audit import Audit
from ckptmerge.workflow.decide import Decision

RECIPE_FILE = "recipe.json"
"""Stands beside a published merge: its recipe, certificate and scores."""


@dataclass(frozen=True)
class OptimizedStudy:
    """A decided study: what was searched, what was shown, and the bytes where any were promoted."""

    run: str
    study: Study
    decision: Decision
    audit: Audit
    held_out: Digest
    passes: Mapping[str, int]
    """Forward passes over the search, certify and audit split."""
    folder: Path | None
    """The promoted merge; None while nothing is promoted."""
    scratch: ClaimedFolder | None = None
    """Holds the merge until it is published; removed together with this object."""

    def __post_init__(self) -> None:
        if self.scratch is not None:
            weakref.finalize(self, self.scratch.remove)

    @property
    def incumbent(self) -> Trial:
        """The winner of the search."""
        winner = self.study.incumbent
        if winner is None:
            raise RefusedError("the study was not frozen, so it has no winner")
        return winner

    @property
    def promoted(self) -> bool:
        """Whether a merge was shown better on documents the search never saw."""
        return self.decision.best is not None

    @property
    def certificate(self) -> Certificate | None:
        """The last test on the certify split; None when no merge was worth testing."""
        made = self.decision.certificates
        return made[-1] if made else None

    def publish(self, out: str | Path) -> Path:
        """Put the promoted merge at ``out``: all of it, or nothing.

        Raises:
            RefusedError: nothing was promoted; the message says why.
            OutputExistsError: something stands at ``out`` already.
        """
        target = Path(out)
        if self.folder is None or self.decision.artifact is None:
            raise RefusedError(self.decision.reason)
        if target.exists():
            raise OutputExistsError(f"{target} exists; name a folder that does not")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._write_recipe(self.folder, self.best(target))
        try:
            self.folder.rename(target)
        except OSError:  # another file system
            staging = target.with_name(f".{target.name}.partial-publish")
            shutil.copytree(self.folder, staging)
            for file in staging.iterdir():
                _fsync(file)
            staging.rename(target)
        _fsync(target.parent)
        return target

    def best(self, folder: Path | None = None) -> wire.Best:
        """Return the answer to "what are the best weights", its files lying in ``folder``."""
        winner, window = self.decision.best, self.study.window
        manifest = (
            window.newest.manifest if self.decision.artifact is None
            else self.decision.artifact.manifest
        )  # fmt: skip
        place = folder or self.folder or Path(window.newest.label)
        weighed = (
            [(window.newest, 1.0)]
            if winner is None
            else list(zip(window, winner.weights.values, strict=True))
        )
        return wire.Best(
            run=self.run,
            kind="checkpoint" if winner is None else "merge",
            promoted=self.promoted,
            reason=self.decision.reason,
            artifact=None if winner is None else str(manifest.digest),
            digest=str(manifest.digest),
            step=window.newest.step,
            tokens=window.newest.tokens,
            study=None,
            stopped=self.study.stopped or "",
            weights=[
                wire.Weight(checkpoint=c.label, attempt=c.attempt, step=c.step, weight=value)
                for c, value in weighed
            ],
            groups=None,
            score=wire.Score.of(self.audit.score),
            baselines={n: wire.Score.of(s) for n, s in self.audit.baselines.items()},
            gains=[wire.Gain.of(gain) for gain in self.audit.gains],
            better_than_uniform=(
                wire.Gain.of(self.audit.better_than_uniform)
                if self.audit.better_than_uniform is not None
                else None
            ),
            certificate=wire.Certificate.of(self.certificate) if self.certificate else None,
            tests=[wire.Certificate.of(made) for made in self.decision.certificates],
            passes=wire.Passes(**self.passes),
            files=[
                File(
                    name=file.name, size=file.size, digest=str(file.digest),
                    href=str(place / file.name),
                )
                for file in manifest.files
            ],
        )  # fmt: skip

    def _write_recipe(self, folder: Path, best: wire.Best) -> None:
        artifact = self.decision.artifact
        content = {
            "recipe": artifact.recipe.as_json() if artifact is not None else None,
            "best": best.model_dump(mode="json"),
        }
        file = folder / RECIPE_FILE
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        _fsync(file)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
