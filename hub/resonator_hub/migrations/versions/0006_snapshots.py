"""Snapshots of what the hub knows, so that a start need not fold the journal from its beginning."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
COUNT = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables, and find events by their kinds."""
    op.create_table(
        "snapshots",
        sa.Column("seq", COUNT, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("ended", sa.Integer, nullable=False),
        sa.Column("first", sa.Boolean, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "ended_jobs",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("job", sa.String(200), nullable=False),
        sa.Column("bundle", sa.String(64), nullable=True),
        sa.Column("status", sa.LargeBinary, nullable=False),
    )
    op.create_index("events_of_a_kind", "events", ["name", "seq"])
