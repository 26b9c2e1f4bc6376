"""The tables of the first version."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
NAME = sa.String(200)
DIGEST = sa.String(64)
# SQLite counts rows by itself in a column of this type alone, which is as large there.
COUNT = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "events",
        sa.Column("seq", COUNT, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    _create_jobs()
    _create_records()
    op.create_table(
        "cost_models",
        sa.Column("hardware", sa.Text, primary_key=True),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("learned", COUNT, nullable=False),
    )
    op.create_table(
        "devices",
        sa.Column("device", NAME, primary_key=True),
        sa.Column("identity", sa.Text, nullable=False),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job", NAME, primary_key=True),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("model", DIGEST, nullable=False),
        sa.Column("site", NAME, nullable=False),
        sa.Column("client", NAME, nullable=False),
        sa.Column("bench", sa.Boolean, nullable=False),
        sa.Column("reference", DIGEST, nullable=True),
    )
    op.create_table(
        "tasks",
        sa.Column("task", NAME, primary_key=True),
        sa.Column("job", NAME, sa.ForeignKey("jobs.job"), nullable=False, index=True),
        sa.Column("workload", DIGEST, nullable=False),
    )
    op.create_table(
        "traces",
        sa.Column("trace", DIGEST, primary_key=True),
        sa.Column("program", DIGEST, nullable=False),
    )
    op.create_table(
        "unbuildable",
        sa.Column("candidate", NAME, primary_key=True),
        sa.Column("trace", DIGEST, nullable=False),
        sa.Column("workload", DIGEST, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
    )
    op.create_index("unbuildable_of_a_workload", "unbuildable", ["workload"])
    op.create_table(
        "kernels",
        sa.Column("kernel", DIGEST, primary_key=True),
        sa.Column("arguments", sa.Text, nullable=False),
    )


def _create_records() -> None:
    op.create_table(
        "records",
        sa.Column("record", COUNT, primary_key=True, autoincrement=True),
        sa.Column("candidate", NAME, nullable=False),
        sa.Column("job", NAME, nullable=False),
        sa.Column("task", NAME, nullable=False),
        sa.Column("device", NAME, nullable=False),
        sa.Column("hardware", sa.Text, nullable=False),
        sa.Column("workload", DIGEST, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("trace", DIGEST, nullable=False),
        sa.Column("features", DIGEST, nullable=False),
        sa.Column("latency_s", sa.Float, nullable=True),
        sa.Column("latencies", sa.Text, nullable=False),
        sa.Column("raced", sa.Boolean, nullable=False),
        sa.Column("failure", sa.Text, nullable=True),
        sa.Column("conditions", sa.Text, nullable=False),
        sa.Column("device_time_s", sa.Float, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.UniqueConstraint("candidate"),
    )
    op.create_index("records_of_a_workload", "records", ["hardware", "workload", "latency_s"])
