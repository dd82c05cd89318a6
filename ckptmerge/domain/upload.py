"""An upload in pieces: what it is of, how far it has come, and which append may come next.

The rules are those of draft-ietf-httpbis-resumable-upload (interop version 8), for uploads whose
length and digest are known from the beginning: bytes are stored under their digest.
"""

from dataclasses import dataclass, replace

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import UploadCompletedError, UploadLengthError, UploadOffsetError


@dataclass(frozen=True)
class Upload:
    """Bytes on their way in.

    Raises:
        UploadLengthError: the offset lies outside of what was announced.
    """

    digest: Digest
    """Of all bytes."""
    length: int
    """How many there will be."""
    offset: int = 0
    """How many there are; a promise that none of them has to be sent again."""
    complete: bool = False
    """Whether they have become a blob; all bytes being there does not make it so."""

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= self.length:
            raise UploadLengthError(
                f"{self.offset:,} bytes cannot be there of an upload of {self.length:,}"
            )

    @property
    def state(self) -> str:
        """Whether more may come."""
        return "complete" if self.complete else "open"

    @property
    def missing(self) -> int:
        """Bytes that are still to come."""
        return self.length - self.offset

    def require_append(self, *, offset: int, size: int, last: bool) -> None:
        """Check that an append may be made, before any of its bytes is asked for.

        Args:
            offset: Where it begins.
            size: Its bytes.
            last: Whether the upload is complete with it.

        Raises:
            UploadOffsetError: it begins somewhere else than where the upload ends.
            UploadLengthError: it ends beyond the upload, or is the last one and ends before.
            UploadCompletedError: there is nothing to append.
        """
        if offset != self.offset:
            raise UploadOffsetError(
                f"the upload has {self.offset:,} bytes, and {offset:,} is not where it goes on; "
                f"append from byte {self.offset}"
            )
        if offset + size > self.length:
            raise UploadLengthError(
                f"{size:,} bytes from {offset:,} on end beyond the {self.length:,} that were "
                "announced; append what is missing, or begin another upload"
            )
        if self.complete:
            raise UploadCompletedError(f"the upload is complete; its bytes are blob {self.digest}")
        if last and offset + size < self.length:
            raise UploadLengthError(
                f"the last append ends at {offset + size:,} of the {self.length:,} bytes that were "
                "announced; append all that is missing, or say Upload-Complete: ?0"
            )

    def advanced(self, offset: int) -> "Upload":
        """Return the upload with the bytes up to ``offset``.

        Raises:
            UploadOffsetError: it has more already; what was promised is not taken back.
            UploadLengthError: the offset lies beyond its end.
        """
        if offset < self.offset:
            raise UploadOffsetError(
                f"the upload has {self.offset:,} bytes and cannot go back to {offset:,}"
            )
        return replace(self, offset=offset)

    def completed(self) -> "Upload":
        """Return the upload once its bytes have become a blob."""
        return replace(self, offset=self.length, complete=True)
