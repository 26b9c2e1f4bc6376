"""Programs by workload and trace: one trace may fit several workloads and make another program of each."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
DIGEST = sa.String(64)
SHARED = "SELECT trace FROM records GROUP BY trace HAVING COUNT(DISTINCT workload) > 1"


def upgrade() -> None:
    """Forget what may have been mistaken for another workload's: builds, and records of shared traces."""
    op.drop_table("traces")
    op.create_table(
        "programs",
        sa.Column("workload", DIGEST, primary_key=True),
        sa.Column("trace", DIGEST, primary_key=True),
        sa.Column("program", DIGEST, nullable=False),
    )
    op.execute("DELETE FROM builds")
    op.execute(f"DELETE FROM records WHERE trace IN ({SHARED})")
    op.execute("DELETE FROM cost_models")
