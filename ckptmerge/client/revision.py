"""A revision of a run: weights that a service has, and the folder they become on this machine."""

import json
import os
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

from ckptmerge.client.blobs import download
from ckptmerge.client.landing import Landing
from ckptmerge.client.partial_file import OnBytes
from ckptmerge.client.session import Session
from ckptmerge.domain.digest import Digest
from ckptmerge.wire.best import Best
from ckptmerge.wire.checkpoints import CheckpointResource
from ckptmerge.wire.lineage import ArtifactResource

RECIPE_FILE = "recipe.json"
"""Stands beside the weights: what they were made of, and what was shown about them."""

CHAMPION = frozenset({"main", "best"})
"""Names of whatever is the best of a run when it is asked for."""

_STEP = re.compile(r"step-([0-9]{1,16})")

Answer = TypeVar("Answer", Best, CheckpointResource, ArtifactResource)


def step_of(revision: str) -> int | None:
    """Return the N of ``step-N``; None where a revision is no step."""
    found = _STEP.fullmatch(revision)
    return None if found is None else int(found[1])


@dataclass(frozen=True)
class Revision(Generic[Answer]):
    """What a service answers when asked for some of a run's weights."""

    session: Session
    answer: Answer

    KINDS: ClassVar[dict[type, Literal["best", "checkpoint", "artifact"]]] = {
        Best: "best",
        CheckpointResource: "checkpoint",
        ArtifactResource: "artifact",
    }

    @property
    def kind(self) -> Literal["best", "checkpoint", "artifact"]:
        """What was asked for: the best, a checkpoint, or a merge by its id."""
        return self.KINDS[type(self.answer)]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.answer.files)

    def download(self, out: str | Path, on_bytes: OnBytes | None = None) -> Path:
        """Make the model appear at ``out``: all of it, every digest verified, or nothing.

        What a cut connection or a kill leaves in a hidden folder beside ``out`` is continued by
        the next download of the same weights to the same place. ``recipe.json`` holds the answer.

        Raises:
            OutputExistsError: something stands at ``out`` already.
            RefusedError: another process downloads these weights to ``out``.
            DigestMismatchError: a file is not what the service promised.
            OutOfSpaceError: the disk cannot hold the model.
            ServiceError: the service refuses, or no more bytes come.
        """
        with closing(Landing(Path(out), self._identity)) as landing:
            for file in self.answer.files:
                download(
                    self.session, file.href, landing.folder / file.name,
                    size=file.size, digest=Digest.parse(file.digest), on_bytes=on_bytes,
                )  # fmt: skip
            self._write_answer(landing.folder)
            return landing.publish()

    @property
    def _identity(self) -> Digest:
        return Digest.of_json(sorted([file.name, file.digest] for file in self.answer.files))

    def _write_answer(self, folder: Path) -> None:
        if any(file.name == RECIPE_FILE for file in self.answer.files):
            return  # the service publishes one of its own
        content = {self.kind: self.answer.model_dump(mode="json")}
        with (folder / RECIPE_FILE).open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
