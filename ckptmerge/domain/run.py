"""Run: one pretraining run, and how much of its testing budget it has spent."""

import re
from dataclasses import dataclass, replace

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
RESERVED = frozenset(
    {"v1", "api", "docs", "static", "runs", "studies", "healthz", "readyz", "metrics"}
)


def name_from(text: str) -> str:
    """Make a run name of what a folder is called."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return name[:96] or "run"


@dataclass(frozen=True, slots=True)
class Era:
    """The time during which a run is judged on one held-out set.

    A new held-out set begins a new era: alpha restarts, and curves are not joined.
    """

    held_out: Digest
    tests: int = 0
    """Tests already made on the certify split."""

    def next_test(self) -> tuple[int, "Era"]:
        """Return the number of the next test, and the era after it."""
        return self.tests + 1, replace(self, tests=self.tests + 1)


@dataclass(frozen=True, slots=True)
class Run:
    """A pretraining run.

    Raises:
        InvalidInputError: the name is reserved, or holds other than lower-case letters, digits,
            ``.``, ``_`` and ``-``.
    """

    name: str
    era: Era
    earlier: tuple[Era, ...] = ()
    """Eras that are over, oldest first."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidInputError(
                f"run name {self.name!r}: use 1 to 96 lower-case letters, digits, '.', '_' or '-', "
                "beginning with a letter or digit"
            )
        if self.name in RESERVED:
            raise InvalidInputError(f"run name {self.name!r} is reserved; choose another")

    def judged_on(self, held_out: Digest) -> "Run":
        """Begin a new era; documents of the present one change nothing.

        Alpha restarts with documents that no test has seen. A run that comes back to documents it
        was tested on goes on counting where it stopped, or changing to and fro would buy alpha.
        """
        if held_out == self.era.held_out:
            return self
        over = (*self.earlier, self.era)
        made = max((era.tests for era in over if era.held_out == held_out), default=0)
        return replace(self, era=Era(held_out, made), earlier=over)
