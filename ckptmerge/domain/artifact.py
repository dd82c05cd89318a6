"""Artifact: a merge written to files."""

from dataclasses import dataclass

from ckptmerge.domain.checkpoint import Manifest
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.recipe import Recipe


@dataclass(frozen=True)
class Artifact:
    """The files of a merge and the recipe that rebuilds them."""

    recipe: Recipe
    manifest: Manifest

    @property
    def digest(self) -> Digest:
        """Identity of the artifact's files."""
        return self.manifest.digest
