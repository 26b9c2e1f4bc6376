"""Which of the hubs that share a database leads, and what tells this database from all others."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
NAME = sa.String(200)


def upgrade() -> None:
    """Create the table with its one row; nobody leads yet."""
    leadership = op.create_table(
        "leadership",
        sa.Column("one", sa.Integer, primary_key=True),
        sa.Column("origin", NAME, nullable=False),
        sa.Column("holder", NAME, nullable=False),
        sa.Column("term", sa.Integer, nullable=False),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.Column("written", NAME, nullable=False),
    )
    origin = secrets.token_hex(8)
    op.bulk_insert(
        leadership, [{"one": 1, "origin": origin, "holder": "", "term": 0, "beat": 0, "written": ""}]
    )
