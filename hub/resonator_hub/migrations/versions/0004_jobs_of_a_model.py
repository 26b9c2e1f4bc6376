"""Jobs are found by their models: whoever asks for a model is asked whose it is."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the index."""
    op.create_index("jobs_of_a_model", "jobs", ["model"])
