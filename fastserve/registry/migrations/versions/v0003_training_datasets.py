"""Training data sets, and the view versions each was made from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "fastserve_training_datasets",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("dataset_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
    )
    view_id = sa.ForeignKey("fastserve_views.view_id")
    op.create_table(
        "fastserve_dataset_views",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("dataset_id", sa.Text, primary_key=True),
        sa.Column("view_id", sa.Integer, view_id, primary_key=True, autoincrement=False),
        sa.Column("definition_hash", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "dataset_id"],
            ["fastserve_training_datasets.project", "fastserve_training_datasets.dataset_id"],
        ),
    )
    op.create_index("fastserve_dataset_views_view", "fastserve_dataset_views", ["view_id"])
