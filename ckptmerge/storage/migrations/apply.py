"""Bring a database up to date before anything is read from it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from ckptmerge.errors import InvalidInputError


def bring_up_to_date(engine: Engine, path: Path) -> None:
    """Run the migrations that the database has not seen, in one transaction.

    A database that is not new is copied aside first, as ``<name>.before-<version>``.

    Raises:
        InvalidInputError: it was written by a newer version of this program.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    newest = script.get_current_head()
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == newest:
        return
    if current is not None:
        _require_known(script, current, path)
        _copy_aside(engine, path, current)
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _require_known(script: ScriptDirectory, current: str, path: Path) -> None:
    if current not in {revision.revision for revision in script.walk_revisions()}:
        raise InvalidInputError(
            f"{path} has schema {current}, which this version does not know: it was written by a "
            "newer one. Start that version, or restore the copy made before it was upgraded"
        )


def _copy_aside(engine: Engine, path: Path, current: str) -> None:
    copy = path.with_name(f"{path.name}.before-{current}")
    copy.unlink(missing_ok=True)
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("VACUUM INTO ?", (str(copy),))
    finally:
        raw.close()
