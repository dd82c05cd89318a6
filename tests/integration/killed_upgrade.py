"""Open a store of an older version, and die on the way: ``… KIND WHERE POINT``.

KIND is ``sqlite`` or ``postgres``, WHERE its path or address. POINT is the number of the statement
after which the process kills itself, or ``aside``: between the copy aside and its name. Without a
kill it prints how many statements there were.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from sqlalchemy import Engine, event

from ckptmerge.storage import sqlite
from ckptmerge.storage.postgres import PostgresStore

kind, where, point = sys.argv[1:]
statements = 0


def die(*_: object) -> NoReturn:
    """End as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@event.listens_for(Engine, "after_cursor_execute")
def count(*_: object) -> None:
    """Die after the chosen statement."""
    global statements  # noqa: PLW0603 - the one thing that this program counts
    statements += 1
    if str(statements) == point:
        die()


if point == "aside":
    sqlite.sync_file = die
(sqlite.SqliteStore(Path(where)) if kind == "sqlite" else PostgresStore(where)).close()
sys.stdout.write(f"{statements}\n")
