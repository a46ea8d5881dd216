"""Alembic's environment: the URL comes from the caller (`registry.database.migrate`)."""

from alembic import context
from sqlalchemy import create_engine

from dc_platform.registry.models import Base

engine = create_engine(context.config.attributes["url"])
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
