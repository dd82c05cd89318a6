"""The store in memory: for tests, and for what need not outlive its process."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from ckptmerge.storage.records import RECORDS, R

_Tables = dict[type[Any], dict[str, Any]]


class MemoryStore:
    """Records in dictionaries; a unit works on copies of the tables it changes."""

    def __init__(self) -> None:
        self._tables: _Tables = {kind: {} for kind in RECORDS.values()}
        self._lock = Lock()

    @contextmanager
    def read(self) -> Iterator["_MemoryUnit"]:
        """Look at the records; tables are replaced, never changed, so these stay as they are."""
        yield _MemoryUnit(dict(self._tables))

    @contextmanager
    def write(self) -> Iterator["_MemoryUnit"]:
        """Change records, all or nothing."""
        with self._lock:
            unit = _MemoryUnit(dict(self._tables))
            yield unit
            self._tables = unit.tables

    def close(self) -> None:
        """Do nothing: nothing was opened."""


class _MemoryUnit:
    def __init__(self, tables: _Tables) -> None:
        self.tables = tables
        self._own: set[type[Any]] = set()

    def get(self, kind: type[R], key: str) -> R | None:
        return self.tables[kind].get(key)

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
        _require_indexed(kind, equal)
        keys = list(self.tables[kind])
        if newest_first:
            keys.reverse()
        if after is not None:
            keys = keys[keys.index(after) + 1 :] if after in self.tables[kind] else []
        return [r for r in map(self.tables[kind].__getitem__, keys) if _matches(r, equal)][:limit]

    def count(self, kind: type[R], /, **equal: str | int) -> int:
        _require_indexed(kind, equal)
        return sum(_matches(record, equal) for record in self.tables[kind].values())

    def insert(self, record: R) -> R:
        key = getattr(record, record.KEY)
        if key in self.tables[type(record)]:
            raise ValueError(f"{type(record).__name__} {key!r} exists")
        self._table(type(record))[key] = record
        return record

    def update(self, record: R) -> R:
        key = getattr(record, record.KEY)
        if key not in self.tables[type(record)]:
            raise ValueError(f"{type(record).__name__} {key!r} does not exist")
        self._table(type(record))[key] = record
        return record

    def delete(self, kind: type[R], key: str) -> None:
        self._table(kind).pop(key, None)

    def _table(self, kind: type[Any]) -> dict[str, Any]:
        if kind not in self._own:
            self.tables[kind] = dict(self.tables[kind])
            self._own.add(kind)
        return self.tables[kind]


def _matches(record: object, equal: dict[str, str | int]) -> bool:
    return all(getattr(record, name) == value for name, value in equal.items())


def _require_indexed(kind: type[Any], equal: dict[str, str | int]) -> None:
    unknown = equal.keys() - {kind.KEY, *kind.INDEXED}
    if unknown:
        raise ValueError(f"{kind.__name__} is not looked up by {sorted(unknown)}")
