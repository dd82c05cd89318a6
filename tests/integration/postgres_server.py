"""A real PostgreSQL server, for tests that write to it, kill it and start it again."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

_PROGRAMS = ("initdb", "pg_ctl", "psql", "pg_dump")
_PACKAGED = Path("/usr/lib/postgresql")
"""Where Debian puts the programs of each version, outside of PATH."""

_CONFIGURATION = """
listen_addresses = ''
max_connections = 60
shared_buffers = 16MB
fsync = on
full_page_writes = on
log_min_messages = warning
"""

_PATIENCE = 60


class NoServerError(Exception):
    """No PostgreSQL can be run here; the message says what is missing."""


class PostgresServer:
    """A server of its own folder, reached over a socket in it; root runs it as another user.

    Args:
        folder: A new folder with a short name: a socket's path is a hundred bytes at most.

    Raises:
        NoServerError: the programs are not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._bin = _programs()
        self._folder = folder
        self._data = folder / "data"
        self._databases = count()
        self._user = None
        if os.geteuid() == 0:
            self._user = _unprivileged()
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", self._data, "-U", "tester", "--auth=trust", "-E", "UTF8", "-N")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{_CONFIGURATION}unix_socket_directories = '{folder}'\n")

    @property
    def version(self) -> int:
        """The server's major version."""
        return int((self._data / "PG_VERSION").read_text())

    def start(self) -> None:
        """Start, and wait until connections are taken."""
        self._control("start")

    def stop(self, mode: str = "fast") -> None:
        """Stop; ``immediate`` leaves the server as a crash would."""
        self._control("stop", "-m", mode)

    def restart(self, mode: str = "immediate") -> None:
        """Stop and start again."""
        self._control("restart", "-m", mode)

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://tester@/{database}?host={self._folder}"

    def create_database(self, *options: str) -> str:
        """Make an empty database, with options of ``CREATE DATABASE``; return its address."""
        name = f"store_{next(self._databases)}"
        self.sql(f"CREATE DATABASE {name} {' '.join(options)}")
        return self.url(name)

    def sql(self, statement: str, *, url: str | None = None) -> str:
        """Run a statement as the owner of everything; return what psql prints."""
        command = (url or self.url(), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement)
        return self._run("psql", *command)

    def hang_up(self, url: str) -> None:
        """End every connection to a database."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            url=url,
        )

    def dump(self, url: str) -> str:
        """Return what pg_dump writes of a database."""
        return self._run("pg_dump", "--dbname", url)

    def restore(self, dump: str, url: str) -> None:
        """Run what `dump` has returned on an empty database."""
        self._run("psql", url, "-X", "-q", "-v", "ON_ERROR_STOP=1", given=dump)

    def log(self) -> str:
        """Return what the server has said."""
        return (self._folder / "log").read_text(errors="replace")

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", *arguments, "-D", self._data, "-l", self._folder / "log", "-w")

    def _run(self, program: str, *arguments: str | Path, given: str = "") -> str:
        # Not a pipe, which would stay open in the server that pg_ctl leaves behind.
        with tempfile.TemporaryFile("w+") as out:
            ran = subprocess.run(
                [self._bin / program, *arguments], user=self._user, cwd="/", timeout=_PATIENCE,
                extra_groups=None if self._user is None else [], check=False, text=True,
                input=given, stdout=out, stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            )  # fmt: skip
            out.seek(0)
            said = out.read()
        assert ran.returncode == 0, f"{program} {arguments}: {said}"
        return said.strip()


@contextmanager
def postgres_running() -> Iterator[PostgresServer]:
    """Run a server until the end of the block; nothing of it is left.

    Raises:
        NoServerError: none can be run here.
    """
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short, for the socket's path
    try:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    newest_first = sorted(_PACKAGED.glob("*/bin"), key=lambda f: f.parent.name, reverse=True)
    on_path = shutil.which("pg_ctl")
    for folder in (*newest_first, *([Path(on_path).resolve().parent] if on_path else [])):
        if all((folder / program).exists() for program in _PROGRAMS):
            return folder
    raise NoServerError("PostgreSQL's server is not installed here (Debian: postgresql)")


def _unprivileged() -> str:
    """Name a user who is not root: the server refuses to run as that."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise NoServerError("there is no user `postgres` or `nobody` to run PostgreSQL as")
