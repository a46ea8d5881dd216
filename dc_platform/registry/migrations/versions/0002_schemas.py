"""schemas, their versions and bindings, and failed sources"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "schemas",
        sa.Column("schema_id", sa.String(length=36), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("event_type", sa.String(length=256), nullable=False),
        sa.Column("compatibility", sa.String(length=16), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("deleted_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("schema_id"),
    )
    op.create_index("schemas_name", "schemas", ["tenant_id", "name"], unique=False)
    op.create_table(
        "schema_versions",
        sa.Column("schema_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("schema_id", "version"),
    )
    op.create_table(
        "schema_bindings",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.String(length=36), nullable=False),
        sa.Column("event_type", sa.String(length=256), nullable=False),
        sa.Column("schema_id", sa.String(length=36), nullable=True),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("schema_bindings_source", "schema_bindings", ["source_id"], unique=False)
    op.create_table(
        "source_failures",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.String(length=36), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.String(length=1024), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("source_failures_source", "source_failures", ["source_id"], unique=False)
    _keep_described()
    with op.batch_alter_table("sources", schema=None) as batch_op:
        batch_op.drop_column("schema")


def _keep_described() -> None:
    """What stood in `schema` judged nothing: it becomes a member of the source's metadata."""
    sources = sa.table(
        "sources",
        sa.column("source_id", sa.String),
        sa.column("metadata", sa.JSON),
        sa.column("schema", sa.JSON(none_as_null=True)),
    )
    connection = op.get_bind()
    described = sa.select(sources).where(sources.c.schema.is_not(None))
    for row in connection.execute(described).mappings().fetchall():
        if row["schema"] is not None:
            connection.execute(
                sources.update()
                .where(sources.c.source_id == row["source_id"])
                .values(metadata={"schema": row["schema"], **row["metadata"]})
            )


def downgrade() -> None:

    with op.batch_alter_table("sources", schema=None) as batch_op:
        batch_op.add_column(sa.Column("schema", sa.JSON(), nullable=True))
    op.drop_table("source_failures")
    op.drop_table("schema_bindings")
    op.drop_table("schema_versions")
    op.drop_table("schemas")
