"""The store: records, changed by one writer at a time and all or nothing."""

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from ckptmerge.storage.records import R


@runtime_checkable
class Snapshot(Protocol):
    """The records as they stood at one moment."""

    def get(self, kind: type[R], key: str) -> R | None:
        """Return the record with this key."""
        ...

    def find(
        self,
        kind: type[R],
        /,
        *,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        **equal: str | int,
    ) -> list[R]:
        """Return records whose indexed fields have the given values, in order of insertion.

        Args:
            kind: Of the records.
            after: Key of the record after which to go on; for pages.
            limit: How many at most.
            newest_first: Whether to turn the order round.
            equal: Values of indexed fields.

        Raises:
            ValueError: a field is not indexed.
        """
        ...

    def count(self, kind: type[R], /, **equal: str | int) -> int:
        """Count what ``find`` would return."""
        ...


@runtime_checkable
class Unit(Snapshot, Protocol):
    """Changes that take effect together, and see themselves before they do."""

    def insert(self, record: R) -> R:
        """Add a record and return it.

        Raises:
            ValueError: there is one with this key.
        """
        ...

    def update(self, record: R) -> R:
        """Replace the record with this key and return the new one.

        Raises:
            ValueError: there is none.
        """
        ...

    def delete(self, kind: type[R], key: str) -> None:
        """Remove a record; nothing happens where there is none."""
        ...


@runtime_checkable
class Store(Protocol):
    """Where records live; safe from several threads."""

    def read(self) -> AbstractContextManager[Snapshot]:
        """Look at the records; what is written meanwhile is not seen."""
        ...

    def write(self) -> AbstractContextManager[Unit]:
        """Change records: at the end of the block all changes are durable, or none where it raised.

        Writers wait for each other; within the block nobody else writes.

        Raises:
            OutOfSpaceError: the disk is full; nothing was changed.
            DiskFailedError: the disk failed; nothing was changed.
            StoreUnavailableError: the database does not answer; all of it was changed, or nothing.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
