"""Access tokens, and the audit log of what was done with them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_TABLES = ("tokens", "audit")


def upgrade() -> None:
    """Make the tables."""
    for name in _TABLES:
        op.create_table(
            name,
            sa.Column("seq", _WHOLE, primary_key=True, autoincrement=True),
            sa.Column("key", sa.String, nullable=False, unique=True),
            sa.Column("body", sa.Text, nullable=False),
            sqlite_autoincrement=True,
        )


def downgrade() -> None:
    """Remove them."""
    for name in _TABLES:
        op.drop_table(name)
