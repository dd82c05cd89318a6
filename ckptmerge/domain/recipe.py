"""Recipe: enough to rebuild a merge's bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from ckptmerge.domain.digest import Digest, canonical_json
from ckptmerge.domain.weights import GroupedWeights, MergeWeights, WeightGroup, Weights
from ckptmerge.errors import InvalidInputError, InvalidWeightsError

ARITHMETIC = "1"
"""Version of the arithmetic; docs/decisions/0003 defines it."""

OutputDtype = Literal["keep", "bf16", "f16", "f32"]
"""Dtype of the merged floating-point tensors; ``keep`` takes each tensor's own."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Parents, weights and arithmetic of a merge.

    Raises:
        InvalidWeightsError: there are not as many weights as parents.
        InvalidInputError: the shard size is not positive.
    """

    parents: tuple[Digest, ...]
    """Content digests, oldest first."""
    weights: Weights
    dtype: OutputDtype = "keep"
    shard_size: int = 5_000_000_000
    """Largest number of tensor bytes in one output file."""
    arithmetic: str = ARITHMETIC
    method: Literal["linear"] = "linear"

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.parents):
            raise InvalidWeightsError(
                f"{len(self.weights)} merge weights for {len(self.parents)} checkpoints; "
                "give one weight a checkpoint, in the same order"
            )
        if self.shard_size <= 0:
            raise InvalidInputError(f"shard size must be positive, not {self.shard_size}")
        if self.arithmetic != ARITHMETIC:
            raise InvalidInputError(
                f"this version computes arithmetic {ARITHMETIC!r}, not {self.arithmetic!r}"
            )

    def as_json(self) -> dict[str, object]:
        """Return the recipe as JSON values."""
        weights: object
        if isinstance(self.weights, GroupedWeights):
            weights = [
                {"name": g.name, "pattern": g.pattern, "weights": list(g.weights.values)}
                for g in self.weights.groups
            ]
        else:
            weights = list(self.weights.values)
        return {
            "arithmetic": self.arithmetic,
            "method": self.method,
            "parents": [str(parent) for parent in self.parents],
            "weights": weights,
            "dtype": self.dtype,
            "shard_size": self.shard_size,
        }

    def as_metadata(self) -> dict[str, str]:
        """Return the recipe as a safetensors ``__metadata__``: text to text.

        ``format: pt`` stands beside it since transformers refuses files without it.
        """
        return {"format": "pt", "recipe": canonical_json(self.as_json())}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Self:
        """Read what ``as_json`` wrote.

        Raises:
            InvalidInputError: a field is missing, of the wrong kind, or not known.
        """
        try:
            fields: dict[str, Any] = dict(value)
            weights = _weights(fields.pop("weights"))
            parents = tuple(Digest.parse(parent) for parent in fields.pop("parents"))
            return cls(parents=parents, weights=weights, **fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"not a recipe: {error}") from error

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self | None:
        """Read a file's ``__metadata__``; None when the file is no merge of ours."""
        if "recipe" not in metadata:
            return None
        return cls.from_json(json.loads(metadata["recipe"]))


def _weights(raw: list[Any]) -> Weights:
    if all(isinstance(entry, dict) for entry in raw):
        groups: list[dict[str, Any]] = raw
        return GroupedWeights(
            tuple(
                WeightGroup(group["name"], group["pattern"], MergeWeights.of(*group["weights"]))
                for group in groups
            )
        )
    return MergeWeights.of(*raw)
