"""Jobs: work in processes of their own, whose state outlives whoever asked for it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of jobs."""
    op.create_table(
        "fastserve_jobs",
        sa.Column("job_id", sa.Integer, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("args", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("cancel_us", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("submitted_us", sa.BigInteger, nullable=False),
        sa.Column("started_us", sa.BigInteger),
        sa.Column("heartbeat_us", sa.BigInteger),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("pid", sa.Integer),
        sa.Column("pid_start", sa.BigInteger),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("progress", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("fastserve_jobs_status", "fastserve_jobs", ["project", "status", "job_id"])
    op.create_index("fastserve_jobs_key", "fastserve_jobs", ["project", "idempotency_key"], unique=True)
