"""Connections to PostgreSQL: how a session is set up, and the locks that it holds.

Two advisory locks (postgresql.org/docs/current/explicit-locking.html, section 13.3.5), numbers that
mean something to this program alone. *Writing* is held by a transaction from its first statement to
its end, so there is one writer at a time whatever process it is in. *Sole* is held by the
connection that a service writes on, for as long as that lives: whoever writes holds it, and whoever
has lost the connection has lost the lock with it, and must take it again before anything else.
"""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.pool import QueuePool

from ckptmerge.errors import InvalidInputError, StoreTakenError
from ckptmerge.storage.postgres_url import without_secrets

SOLE = int.from_bytes(b"ckptmerg", "big")
WRITING = SOLE + 1

_PATIENCE = "1s"
"""Waited for the lock of a service that is just ending, or of our own connection that was lost."""

_READERS = 20
"""Connections for reading at most; PostgreSQL takes a hundred unless it is told otherwise."""

_LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE; postgresql.org/docs/current/errcodes-appendix.html."""

_BOTH = ("statement_timeout = '30s'", "idle_in_transaction_session_timeout = '60s'")
READ_SETTINGS = (
    *_BOTH,
    "default_transaction_isolation = 'repeatable read'",
    "default_transaction_read_only = on",
)
WRITE_SETTINGS = (
    *_BOTH,
    # Each statement sees all that was committed before it: the lock has been waited for by then.
    "default_transaction_isolation = 'read committed'",
    "synchronous_commit = on",
    # The server notices within half a minute that this machine is gone, and frees its locks.
    "tcp_keepalives_idle = 10",
    "tcp_keepalives_interval = 5",
    "tcp_keepalives_count = 3",
)

_CONNECT = {
    "connect_timeout": 10,
    "client_encoding": "utf8",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "target_session_attrs": "read-write",  # no standby: it would refuse the first change
}
"""Parameters of libpq; those in the address come before them."""


_HOLDER = """
SELECT coalesce(nullif(application_name, ''), 'process ' || pid || ' of the server')
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND database = datid
AND (classid::bigint << 32) + objid::bigint = %s
"""


def sole_holder(connection: Connection) -> str | None:
    """Say who has the database for themselves, as far as this role may see it."""
    return connection.exec_driver_sql(_HOLDER, (SOLE,)).scalar()


def reading_engine(url: URL) -> Engine:
    """Make an engine whose transactions look at one moment, and change nothing."""
    return _engine(url, READ_SETTINGS, size=5, more=_READERS - 5)


def writing_engine(url: URL, *, sole: bool) -> Engine:
    """Make an engine of one connection, whose transactions keep every other writer out.

    Args:
        url: The database.
        sole: Whether its connection holds the lock of which there is one a database; it raises
            `StoreTakenError` where somebody else has it, also when it must be made again.
    """
    engine = _engine(url, WRITE_SETTINGS, size=1, more=0, then=_take_sole_lock if sole else None)
    event.listen(engine, "begin", _take_turn)
    return engine


def _take_turn(connection: Connection) -> None:
    """Wait until no other transaction writes; the turn ends with ours, whatever ends it."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITING})")


def _engine(
    url: URL,
    settings: Sequence[str],
    *,
    size: int,
    more: int,
    then: Callable[[Any, str], None] | None = None,
) -> Engine:
    name = f"ckptmerge, process {os.getpid()} on {socket.gethostname()}"[:63]
    defaults = {**_CONNECT, "application_name": name}
    try:
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=more,
            # A connection that was lost while nobody used it is replaced before anybody does.
            pool_pre_ping=True,
            connect_args={n: value for n, value in defaults.items() if n not in url.query},
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            "the driver for PostgreSQL is missing; install it: pip install 'ckptmerge[postgres]'"
        ) from error

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.autocommit = True
        try:
            for setting in settings:
                connection.execute(f"SET {setting}")
            if then is not None:
                then(connection, without_secrets(url.render_as_string(hide_password=False)))
        except BaseException:
            connection.close()
            raise
        connection.autocommit = False

    return engine


def _take_sole_lock(connection: Any, name: str) -> None:
    try:
        connection.execute(f"SET lock_timeout = '{_PATIENCE}'")
        connection.execute(f"SELECT pg_advisory_lock({SOLE})")
        connection.execute("RESET lock_timeout")
    except connection.OperationalError as error:
        if error.sqlstate != _LOCK_NOT_AVAILABLE:
            raise
        raise StoreTakenError(
            f"{name} is already served by {_holder(connection) or 'another service'}; stop that "
            "one first, or name another database"
        ) from None


def _holder(connection: Any) -> str | None:
    found = connection.execute(_HOLDER, (SOLE,)).fetchone()
    return None if found is None else found[0]
