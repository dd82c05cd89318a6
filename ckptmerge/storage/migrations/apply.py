"""Bring a database up to date before anything is read from it."""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from ckptmerge.errors import InvalidInputError


def bring_up_to_date(
    engine: Engine, name: str, *, set_aside: Callable[[str], None] = lambda _version: None
) -> None:
    """Run the migrations that the database has not seen, in one transaction.

    Args:
        engine: Its transactions keep every other writer out.
        name: What messages call the database.
        set_aside: Called with the version of a database that is not new, before it is changed.

    Raises:
        InvalidInputError: it was written by a newer version of this program.
    """
    config, script = _migrations()
    current = schema_version(engine)
    if current == script.get_current_head():
        return
    if current is not None:
        require_known(current, name)
        set_aside(current)
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def schema_version(engine: Engine) -> str | None:
    """Return the last migration that a database has seen; None of one that holds nothing."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require_known(version: str, name: str) -> None:
    """Check that this program can read a schema, or bring it up to date.

    Raises:
        InvalidInputError: the schema is that of a newer version of this program.
    """
    _, script = _migrations()
    if version not in {revision.revision for revision in script.walk_revisions()}:
        raise InvalidInputError(
            f"{name} has schema {version}, which this version does not know: it was written by a "
            "newer one. Start that version, or restore the copy made before it was upgraded"
        )


def newest_version() -> str | None:
    """Return the migration that this program's tables are made by."""
    return _migrations()[1].get_current_head()


def _migrations() -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config, ScriptDirectory.from_config(config)
