"""Window: k checkpoints of one run, oldest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ckptmerge.domain.checkpoint import Checkpoint, require_one_model
from ckptmerge.errors import InvalidInputError


@dataclass(frozen=True)
class Window:
    """At least two checkpoints of one model in the order of training.

    Raises:
        InvalidInputError: fewer than two, out of order, or one step twice.
        IncompatibleCheckpointsError: their tensors differ in names, dtypes or shapes.
    """

    checkpoints: tuple[Checkpoint, ...]

    def __post_init__(self) -> None:
        if len(self.checkpoints) < 2:
            raise InvalidInputError(
                f"a merge needs at least two checkpoints, not {len(self.checkpoints)}"
            )
        order = [(c.attempt, c.step) for c in self.checkpoints]
        for earlier, later in pairwise(order):
            if earlier == later:
                raise InvalidInputError(f"step {later[1]} stands twice in the window")
            if earlier > later:
                raise InvalidInputError(
                    f"checkpoints must stand oldest first: step {earlier[1]} before {later[1]}"
                )
        require_one_model(
            [c.label for c in self.checkpoints], [c.manifest.signature for c in self.checkpoints]
        )

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    @property
    def newest(self) -> Checkpoint:
        """The last checkpoint."""
        return self.checkpoints[-1]
