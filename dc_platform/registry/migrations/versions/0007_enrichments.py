"""enrichments: which field of a schema names rows of which reference table"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "enrichments",
        sa.Column("schema_id", sa.String(length=36), nullable=False),
        sa.Column("field", sa.String(length=512), nullable=False),
        sa.Column("reference", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("schema_id", "field"),
    )


def downgrade() -> None:
    op.drop_table("enrichments")
