"""metrics and the versions of their definitions"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "metrics",
        sa.Column("metric_id", sa.String(length=36), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("deleted_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("metric_id"),
    )
    with op.batch_alter_table("metrics", schema=None) as batch_op:
        batch_op.create_index("metrics_name", ["tenant_id", "name"], unique=False)

    op.create_table(
        "metric_versions",
        sa.Column("metric_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("definition", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("metric_id", "version"),
    )
    with op.batch_alter_table("metric_versions", schema=None) as batch_op:
        batch_op.create_index("metric_versions_changed", ["changed_at"], unique=False)


def downgrade() -> None:

    with op.batch_alter_table("metric_versions", schema=None) as batch_op:
        batch_op.drop_index("metric_versions_changed")

    op.drop_table("metric_versions")
    with op.batch_alter_table("metrics", schema=None) as batch_op:
        batch_op.drop_index("metrics_name")

    op.drop_table("metrics")
