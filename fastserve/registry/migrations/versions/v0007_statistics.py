"""Statistics of the rows that runs read."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    view_id = sa.ForeignKey("fastserve_views.view_id")
    op.create_table(
        "fastserve_statistics",
        sa.Column("id", number, primary_key=True),
        sa.Column("view_id", sa.Integer, view_id, nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("late", sa.Boolean, nullable=False),
        sa.Column("run_id", sa.Integer),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("fastserve_statistics_view", "fastserve_statistics", ["view_id", "start_us"])
