"""Kernels by what they were built of, similar workloads, and what has been tuned."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
DIGEST = sa.String(64)


def upgrade() -> None:
    """Create the new tables, and have the cost models, which are of another form now, learned anew."""
    op.create_table(
        "builds",
        sa.Column("build", DIGEST, primary_key=True),
        sa.Column("kernel", DIGEST, nullable=False),
    )
    op.create_table(
        "workloads",
        sa.Column("workload", DIGEST, primary_key=True),
        sa.Column("structure", DIGEST, nullable=False),
        sa.Column("extents", sa.Text, nullable=False),
    )
    op.create_index("workloads_of_a_structure", "workloads", ["structure"])
    op.create_table(
        "tuned",
        sa.Column("hardware", sa.Text, primary_key=True),
        sa.Column("workload", DIGEST, primary_key=True),
        sa.Column("trials", sa.Float, nullable=False),
    )
    op.execute("DELETE FROM cost_models")
