"""A unit over tables: what every SQL database does alike, within one transaction of its own."""

from functools import cache
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Table, func, select
from sqlalchemy.engine import Connection

from ckptmerge.storage.records import TABLES, R


class SqlUnit:
    """Records in the tables of one connection, whose transaction somebody else begins and ends.

    Args:
        connection: In a transaction.
        known: The tables by name, as `ckptmerge.storage.schema` describes them.
    """

    def __init__(self, connection: Connection, known: dict[str, Table]) -> None:
        self._connection = connection
        self._known = known

    def get(self, kind: type[R], key: str) -> R | None:
        """Return the record with this key."""
        table = self._known[TABLES[kind]]
        query = select(table.c.body).where(self._equal(table.c.key, key))
        body = self._connection.execute(query).scalar_one_or_none()
        return None if body is None else _codec(kind).validate_json(body)

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
        """Return records in the order of insertion, as `ckptmerge.storage.store` says."""
        table = self._known[TABLES[kind]]
        order = table.c.seq.desc() if newest_first else table.c.seq
        query = select(table.c.body).where(*self._where(kind, equal)).order_by(order).limit(limit)
        if after is not None:
            place = select(table.c.seq).where(self._equal(table.c.key, after)).scalar_subquery()
            query = query.where(table.c.seq < place if newest_first else table.c.seq > place)
        codec = _codec(kind)
        return [codec.validate_json(body) for body in self._connection.execute(query).scalars()]

    def count(self, kind: type[R], /, **equal: str | int) -> int:
        """Count what ``find`` would return."""
        table = self._known[TABLES[kind]]
        query = select(func.count()).select_from(table).where(*self._where(kind, equal))
        return self._connection.execute(query).scalar_one()

    def insert(self, record: R) -> R:
        """Add a record.

        Raises:
            ValueError: there is one with this key.
        """
        key = getattr(record, record.KEY)
        table = self._known[TABLES[type(record)]]
        if self.count(type(record), **{record.KEY: key}):
            raise ValueError(f"{type(record).__name__} {key!r} exists")
        self._connection.execute(table.insert().values(key=key, **_columns(record)))
        return record

    def update(self, record: R) -> R:
        """Replace the record with this key.

        Raises:
            ValueError: there is none.
        """
        key = getattr(record, record.KEY)
        table = self._known[TABLES[type(record)]]
        query = table.update().where(self._equal(table.c.key, key)).values(**_columns(record))
        if self._connection.execute(query).rowcount != 1:
            raise ValueError(f"{type(record).__name__} {key!r} does not exist")
        return record

    def delete(self, kind: type[R], key: str) -> None:
        """Remove a record, where there is one."""
        table = self._known[TABLES[kind]]
        self._connection.execute(table.delete().where(self._equal(table.c.key, key)))

    def _where(self, kind: type[Any], equal: dict[str, str | int]) -> list[ColumnElement[bool]]:
        table = self._known[TABLES[kind]]
        unknown = equal.keys() - {kind.KEY, *kind.INDEXED}
        if unknown:
            raise ValueError(f"{kind.__name__} is not looked up by {sorted(unknown)}")
        return [
            self._equal(table.c.key if name == kind.KEY else table.c[name], value)
            for name, value in equal.items()
        ]

    def _equal(self, column: ColumnElement[Any], value: str | int) -> ColumnElement[bool]:
        return column == value


def _columns(record: Any) -> dict[str, Any]:
    body = _codec(type(record)).dump_json(record).decode()
    return {"body": body, **{name: getattr(record, name) for name in record.INDEXED}}


@cache
def _codec(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
