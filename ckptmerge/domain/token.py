"""Access tokens: how they are written, what they allow, and how one is known again.

A token is ``ckm_<id>_<secret><checksum>``. The id finds it, and whoever sees a token in the wrong
place can name it to revoke it; the secret is 32 random bytes; the checksum lets scanners of code
and logs tell a token from what only looks like one, without asking anybody. What is kept is the
SHA-256 of the whole text: of 256 random bits nothing slower is needed.
"""

import hmac
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import InvalidInputError

SECRET_BYTES = 32

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_DIGITS = 43
"""Digits in base 62 that 256 bits need."""
_CHECK_DIGITS = 6
"""Digits in base 62 that a CRC-32 needs."""

_KIND = "k"
_TOKEN = re.compile(rf"ckm_([0-9A-Z]{{26}})_[0-9A-Za-z]{{{_SECRET_DIGITS + _CHECK_DIGITS}}}")


class Scope(StrEnum):
    """What a token may be used for; every token may also read."""

    READ = "read"
    """Everything that changes nothing, but tokens and the audit log."""
    CHECKPOINT_WRITE = "checkpoint:write"
    """What a training job does: upload, register checkpoints, make runs and held-out sets."""
    TRIAL = "trial"
    """What a worker does: take leases, upload what came of them, hand it in."""
    ADMIN = "admin"
    """Everything."""


def widened(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Return all that scopes allow: reading with each of them, and everything with admin.

    A training job looks up what it pushes, and a worker reads checkpoints and documents; a scope
    without reading would be of use to nobody.
    """
    given = frozenset(scopes)
    return frozenset(Scope) if Scope.ADMIN in given else given | {Scope.READ}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one token allows, for how long; never its secret.

    Raises:
        InvalidInputError: it allows nothing.
    """

    hash: Digest
    """Of the token's whole text."""
    scopes: tuple[Scope, ...]
    expires: float | None = None
    """When it ends by itself, in seconds since 1970."""
    revoked: float | None = None
    """When somebody ended it."""

    def __post_init__(self) -> None:
        if not self.scopes:
            raise InvalidInputError(f"a token needs a scope, of {', '.join(Scope)}")

    def opened_by(self, text: str) -> bool:
        """Say whether this is the token, in a time that does not tell how nearly."""
        return hmac.compare_digest(Digest.of_bytes(text.encode()).hex, self.hash.hex)

    def ended(self, now: float) -> float | None:
        """Return when it came to its end; None while it is good."""
        ends = [end for end in (self.expires, self.revoked) if end is not None and end <= now]
        return min(ends, default=None)

    def revoke(self, now: float) -> "Grant":
        """Return the grant without effect from now on; one that has ended stays as it is."""
        return self if self.ended(now) is not None else replace(self, revoked=now)


def write_token(key: str, secret: bytes) -> str:
    """Write a token.

    Args:
        key: Id of its record, such as ``k_01J…``.
        secret: ``SECRET_BYTES`` random bytes.

    Raises:
        ValueError: the secret has another length.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
    number = int.from_bytes(secret, "big")
    text = f"ckm_{key.removeprefix(f'{_KIND}_')}_{_in_base_62(number, _SECRET_DIGITS)}"
    return text + _checksum(text)


def key_of(text: str) -> str | None:
    """Return the id of the record that a token says it belongs to; None where it is no token."""
    match = _TOKEN.fullmatch(text)
    if match is None or _checksum(text[:-_CHECK_DIGITS]) != text[-_CHECK_DIGITS:]:
        return None
    return f"{_KIND}_{match[1]}"


def _checksum(text: str) -> str:
    return _in_base_62(zlib.crc32(text.encode()), _CHECK_DIGITS)


def _in_base_62(number: int, digits: int) -> str:
    written: list[str] = []
    for _ in range(digits):
        number, digit = divmod(number, 62)
        written.append(_DIGITS[digit])
    return "".join(reversed(written))
