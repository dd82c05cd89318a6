"""The first schema.

Written out rather than taken from the code: a migration must go on making what it made when it was
released, whatever the code says by then.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_TEXT: dict[str, tuple[str, ...]] = {
    "blobs": (),
    "held_out_sets": (),
    "runs": (),
    "checkpoints": ("run",),
    "studies": ("run", "state"),
    "tasks": ("study", "state", "kind"),
    "artifacts": ("run", "study"),
    "tests": ("run",),
    "events": ("run",),
}
_NUMBERS: dict[str, tuple[str, ...]] = {"checkpoints": ("step",), "tests": ("era",)}


def upgrade() -> None:
    """Make the tables."""
    for name, texts in _TEXT.items():
        numbers = _NUMBERS.get(name, ())
        op.create_table(
            name,
            sa.Column("seq", _WHOLE, primary_key=True, autoincrement=True),
            sa.Column("key", sa.String, nullable=False, unique=True),
            *(sa.Column(field, sa.String) for field in texts),
            *(sa.Column(field, _WHOLE) for field in numbers),
            sa.Column("body", sa.Text, nullable=False),
            sqlite_autoincrement=True,
        )
        for field in (*texts, *numbers):
            op.create_index(f"ix_{name}_{field}", name, [field])


def downgrade() -> None:
    """Remove them."""
    for name in _TEXT:
        op.drop_table(name)
