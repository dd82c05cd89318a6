"""A hostile file: what is wrong with it, as what it is handed in, and what must come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Place(Enum):
    """As what a file is handed in, which decides the doors that it fits."""

    WEIGHTS = "model.safetensors"
    INDEX = "model.safetensors.index.json"
    """Beside two good shards, ``a.safetensors`` with tensor ``a`` and ``b.safetensors`` with b."""
    SIDE = "a side file"
    """Beside good weights."""
    STRANGER = "the only weights, under a name of their own"
    HELD_OUT = "held-out documents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """A file that somebody hands in."""

    name: str
    """What is wrong with it, in words."""
    place: Place
    make: Callable[[], bytes]
    """Makes its bytes: some are too large to keep all of them."""
    refusal: str | None
    """The kind of problem it is refused as; None where it is legal, whatever it looks like."""
    called: str | None = None
    """Name of the file, where the place does not say."""
