"""The tables: a record's key and indexed fields as columns, all of it as JSON beside them."""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

from ckptmerge.storage.records import RECORDS

_NUMBERS = frozenset({"step", "era"})
"""Indexed fields that are integers; the others are text."""

_WHOLE = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits everywhere: steps go up to 2**53, and SQLite numbers its rows by this name alone."""


def tables(metadata: MetaData) -> dict[str, Table]:
    """Describe the tables of the newest schema, by name."""
    return {name: _table(name, kind.INDEXED, metadata) for name, kind in RECORDS.items()}


def _table(name: str, indexed: tuple[str, ...], metadata: MetaData) -> Table:
    return Table(
        name,
        metadata,
        # Never reused, so the order of insertion is the order of numbers for ever.
        Column("seq", _WHOLE, primary_key=True, autoincrement=True),
        Column("key", String, nullable=False, unique=True),
        *(Column(field, _WHOLE if field in _NUMBERS else String) for field in indexed),
        Column("body", Text, nullable=False),
        *(Index(f"ix_{name}_{field}", field) for field in indexed),
        sqlite_autoincrement=True,
    )
