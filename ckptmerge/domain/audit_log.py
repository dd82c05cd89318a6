"""The audit log: who changed what, each entry bound to the one before it by its digest.

An entry that is changed, left out or put in later breaks the chain from there on. What the chain
cannot show is that its last entries were cut off, or that all of it was written anew; against that
the digest of an entry can be kept elsewhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ckptmerge.domain.digest import Digest

BEGINNING = Digest("0" * 64)
"""What the first entry names as the digest of the one before it."""

ANONYMOUS = "anonymous"
"""Whoever asks a service that asks for no token."""

SETTINGS = "settings"
"""Whoever brings the token of the service's settings."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for something, and in which request."""

    who: str
    """Id of a token, or ``SETTINGS``, or ``ANONYMOUS``."""
    request: str
    """Id of the request, as it stands in the service's log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What somebody has changed."""

    actor: Actor
    action: str
    """In the words of the interface, such as ``change-run``."""
    object: str
    """What was changed, by its address beneath ``/v1``, such as ``runs/olmo-1b``."""
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """How, as JSON; no secret."""
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One act, and its place in the chain."""

    number: int
    """From 1 on, without gaps."""
    act: Act
    previous: Digest
    digest: Digest

    @classmethod
    def after(cls, last: "Entry | None", act: Act) -> "Entry":
        """Return the entry that comes after ``last``; None begins the chain."""
        number = 1 if last is None else last.number + 1
        previous = BEGINNING if last is None else last.digest
        digest = _digest(number, act, previous)
        return cls(number=number, act=act, previous=previous, digest=digest)

    @property
    def is_whole(self) -> bool:
        """Whether it says what it said when it was written."""
        return _digest(self.number, self.act, self.previous) == self.digest


def first_break(entries: Iterable[Entry]) -> int | None:
    """Return the number that the first wrong entry of a chain should have; None where all is well.

    Args:
        entries: The whole log, oldest first.
    """
    previous = BEGINNING
    for number, entry in enumerate(entries, 1):
        if not entry.is_whole or (entry.number, entry.previous) != (number, previous):
            return number
        previous = entry.digest
    return None


def _digest(number: int, act: Act, previous: Digest) -> Digest:
    return Digest.of_json({"number": number, "act": asdict(act), "previous": previous.hex})
