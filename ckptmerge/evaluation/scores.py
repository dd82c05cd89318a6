"""Per-document scores: what a model's pass over held-out documents leaves behind.

Kept by document, one pass answers every later question (other domain weights, intervals, paired
differences, certificates) without another one.
"""

import builtins
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ckptmerge.domain.digest import Digest, canonical_json
from ckptmerge.errors import HeldOutSetError, InvalidInputError, NonFiniteLossError
from ckptmerge.evaluation.documents import Document

_METADATA = "documents"

LARGEST_LOSS = 1e4
"""Nats a token. A model that knows nothing loses the logarithm of its vocabulary, 10 to 13; one
that loses a thousand times that is broken, and a surrogate that must reach it sees nothing else."""

_ROUNDING = 1e-3
"""Nats a token that a loss may lie below zero: what float16 makes of the logarithm of one."""

_HEADER_LENGTH = 8
"""Bytes of the little-endian number before a safetensors header."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DocumentScores:
    """One model's scores, document by document; compare two by their digests.

    Raises:
        ValueError: the fields differ in length or are empty, or a document has no scored byte or
            token.
    """

    nats: Float64[np.ndarray, " documents"]
    """Negative log-likelihood, summed over the document's scored tokens. Not finite where a model
    is broken: that can be recorded, but no interval or p-value is computed from it."""
    bytes: Int64[np.ndarray, " documents"]
    """UTF-8 bytes that the scored tokens stand for."""
    tokens: Int64[np.ndarray, " documents"]
    """How many tokens were scored."""
    domains: tuple[str, ...]
    units: tuple[str, ...]
    """Within a domain, documents with equal labels are one independent unit."""

    def __post_init__(self) -> None:
        shapes = [self.nats.shape, self.bytes.shape, self.tokens.shape, (len(self.units),)]
        if not self.domains or any(shape != (len(self.domains),) for shape in shapes):
            raise ValueError(
                "nats, bytes, tokens, domains and units must be of one length above zero, "
                f"not {shapes} and {len(self.domains)}"
            )
        if (self.bytes <= 0).any() or (self.tokens <= 0).any():
            raise ValueError(
                "a document without a scored byte and token has no score; leave it out"
            )
        for name in ("nats", "bytes", "tokens"):
            own = getattr(self, name).copy()
            own.flags.writeable = False
            object.__setattr__(self, name, own)

    @classmethod
    def of(
        cls,
        documents: Sequence[Document],
        *,
        nats: Float64[np.ndarray, " documents"],
        bytes: Int64[np.ndarray, " documents"],  # noqa: A002 - the field's name
        tokens: Int64[np.ndarray, " documents"],
    ) -> "DocumentScores":
        """Return the scores of ``documents``, in their order."""
        domains = tuple(document.domain for document in documents)
        units = tuple(document.unit for document in documents)
        return cls(nats=nats, bytes=bytes, tokens=tokens, domains=domains, units=units)

    def __len__(self) -> int:
        return len(self.domains)

    @cached_property
    def digest(self) -> Digest:
        """Identity of the scores: SHA-256 of ``to_bytes()``."""
        return Digest.of_bytes(self.to_bytes())

    def to_bytes(self) -> builtins.bytes:
        """Write the scores as a small safetensors file, the same bytes for the same scores."""
        # One metadata entry only: the format does not fix the order of several.
        labels = canonical_json({"domains": self.domains, "units": self.units})
        arrays = {"nats": self.nats, "bytes": self.bytes, "tokens": self.tokens}
        return save(arrays, metadata={_METADATA: labels})

    @staticmethod
    def from_bytes(content: builtins.bytes) -> "DocumentScores":
        """Read what ``to_bytes`` wrote.

        Raises:
            InvalidInputError: the bytes are not a file of scores.
        """
        try:
            arrays = load(content)
            end = _HEADER_LENGTH + int.from_bytes(content[:_HEADER_LENGTH], "little")
            header = json.loads(content[_HEADER_LENGTH:end])
            labels = json.loads(header["__metadata__"][_METADATA])
            return DocumentScores(
                nats=arrays["nats"].astype(np.float64, casting="safe"),
                bytes=arrays["bytes"].astype(np.int64, casting="safe"),
                tokens=arrays["tokens"].astype(np.int64, casting="safe"),
                domains=tuple(map(str, labels["domains"])),
                units=tuple(map(str, labels["units"])),
            )
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"not a file of per-document scores ({error}); score the documents again"
            ) from error


def require_losses(scores: DocumentScores) -> None:
    """Check that scores are what a model can lose, so that statistics can be made of them.

    Raises:
        NonFiniteLossError: on some document the loss is NaN, infinite or beyond all measure: the
            model is broken.
        InvalidInputError: a loss is below zero, which is no model's.
    """
    a_token = scores.nats / scores.tokens
    broken = ~(np.isfinite(a_token) & (a_token <= LARGEST_LOSS))
    if broken.any():
        domain = scores.domains[int(np.flatnonzero(broken)[0])]
        raise NonFiniteLossError(
            f"the loss on {int(broken.sum())} of {len(scores)} documents is not finite, or above "
            f"{LARGEST_LOSS:g} nats a token, first in domain {domain!r}: these weights are no "
            "usable model"
        )
    if (a_token < -_ROUNDING).any():
        raise InvalidInputError(
            f"a loss of {a_token.min():.3g} nats a token is below zero, which no probability gives"
        )


def require_same_documents(a: DocumentScores, b: DocumentScores) -> None:
    """Check that two models were scored on the same documents, cut into the same tokens.

    Raises:
        HeldOutSetError: they differ in number, order, domains, units, bytes or tokens.
    """
    if len(a) != len(b):
        raise HeldOutSetError(
            f"one model was scored on {len(a)} documents, the other on {len(b)}; only scores on "
            "the same documents can be compared"
        )
    same = (
        a.domains == b.domains
        and a.units == b.units
        and np.array_equal(a.bytes, b.bytes)
        and np.array_equal(a.tokens, b.tokens)
    )
    if not same:
        raise HeldOutSetError(
            "the two models were scored on different documents, in another order, or with "
            "another tokenizer or context; score both on the same held-out set"
        )
