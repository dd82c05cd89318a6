"""Every kind of store behind one function, for tests that must hold on all of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptmerge.storage.memory import MemoryStore
from ckptmerge.storage.postgres import PostgresStore
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.storage.store import Store


@contextmanager
def opener(kind: str, folder: Path, url: str = "") -> Iterator[Callable[[], Store]]:
    """Give a function that opens the same records again and again; all are closed at the end.

    Args:
        kind: ``memory``, ``sqlite`` or ``postgres``. What is in memory is the same store each time.
        folder: Where a SQLite database goes.
        url: An empty PostgreSQL database.
    """
    opened: list[Store] = []
    memory = MemoryStore()
    makers: dict[str, Callable[[], Store]] = {
        "memory": lambda: memory,
        "sqlite": lambda: SqliteStore(folder / "store.sqlite"),
        "postgres": lambda: PostgresStore(url),
    }

    def open_again() -> Store:
        opened.append(makers[kind]())
        return opened[-1]

    try:
        yield open_again
    finally:
        for store in opened:
            store.close()
