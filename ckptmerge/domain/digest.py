"""Digest: the SHA-256 of some content, which is that content's identity."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Self

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256, written ``sha256:<64 hexadecimal digits>``."""

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise ValueError(f"not a SHA-256 in lower-case hexadecimal: {self.hex!r}")

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the form that ``str`` writes.

        Raises:
            ValueError: the text is not ``sha256:`` followed by 64 hexadecimal digits.
        """
        scheme, _, digits = text.partition(":")
        if scheme != "sha256":
            raise ValueError(f"not a sha256 digest: {text!r}")
        return cls(digits)

    @classmethod
    def of_bytes(cls, content: bytes) -> Self:
        """Return the digest of ``content``."""
        return cls(hashlib.sha256(content).hexdigest())

    @classmethod
    def of_json(cls, value: object) -> Self:
        """Return the digest of ``value`` as canonical JSON."""
        return cls.of_bytes(canonical_json(value).encode())


def canonical_json(value: object) -> str:
    """Write JSON with sorted keys and no spaces: one text for one value.

    Floats take Python's shortest form that reads back exactly; NaN and infinity are refused.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
