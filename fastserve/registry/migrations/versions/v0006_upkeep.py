"""What was done to the files of each view's offline table, and what retention removed from it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "fastserve_upkeep",
        sa.Column(
            "view_id",
            sa.Integer,
            sa.ForeignKey("fastserve_views.view_id"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("optimized_us", sa.BigInteger),
        sa.Column("removed_before_us", sa.BigInteger),
        sa.Column("removed_retention_us", sa.BigInteger),
        sa.Column("ordered", sa.Text, nullable=False),
    )
