"""The online ids of views: which row sets were ever written, and the one served last."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    view_id = sa.ForeignKey("fastserve_views.view_id")
    op.create_table(
        "fastserve_online_ids",
        sa.Column("online_id", sa.Integer, view_id, primary_key=True, autoincrement=False),
        sa.Column("view_id", sa.Integer, sa.ForeignKey("fastserve_views.view_id"), nullable=False),
        sa.Column("made_us", sa.BigInteger, nullable=False),
        sa.Column("live_us", sa.BigInteger),
        sa.Column("gone_us", sa.BigInteger),
    )
    op.create_index("fastserve_online_ids_view", "fastserve_online_ids", ["view_id"])
