"""Backfills, and how far each date of each store is."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    view_id = sa.ForeignKey("fastserve_views.view_id")
    op.create_table(
        "fastserve_backfills",
        sa.Column("backfill_id", sa.Integer, primary_key=True),
        sa.Column("view_id", sa.Integer, view_id, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("workers", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("started_us", sa.BigInteger, nullable=False),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("fastserve_backfills_view", "fastserve_backfills", ["view_id", "backfill_id"])
    op.create_table(
        "fastserve_backfill_dates",
        sa.Column(
            "view_id",
            sa.Integer,
            sa.ForeignKey("fastserve_views.view_id"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("date", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("rows_new", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("backfill_id", sa.Integer, nullable=False),
        sa.Column("finished_us", sa.BigInteger),
    )
