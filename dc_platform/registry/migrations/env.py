"""Alembic's environment: the connection, in a transaction, comes from `registry.database`."""

from alembic import context

from dc_platform.registry.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
