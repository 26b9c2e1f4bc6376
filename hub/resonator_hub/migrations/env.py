"""How Alembic is run: by the hub at start, on the connection it gives."""

from alembic import context

from resonator_hub.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
