"""The first schema."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make all tables, and the id this registry keeps for life."""
    _make_definitions()
    _make_runs()
    meta = sa.table("fastserve_meta", sa.column("key", sa.Text), sa.column("value", sa.Text))
    op.execute(sa.insert(meta).values(key="registry_id", value=str(uuid.uuid4())))


def _view_id(*, key: bool = False, nullable: bool = False) -> sa.Column[int]:
    reference = sa.ForeignKey("fastserve_views.view_id")
    return sa.Column(
        "view_id", sa.Integer, reference, primary_key=key, nullable=nullable, autoincrement=False
    )


def _make_definitions() -> None:
    op.create_table(
        "fastserve_meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "fastserve_projects",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_table(
        "fastserve_revisions",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("applied_us", sa.BigInteger, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
    )
    op.create_table(
        "fastserve_views",
        sa.Column("view_id", sa.Integer, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("fastserve_views_project", "fastserve_views", ["project"])
    op.create_table(
        "fastserve_layouts",
        _view_id(key=True),
        sa.Column("layout_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("from_revision", sa.Integer, nullable=False),
    )
    _make_objects()


def _make_objects() -> None:
    op.create_table(
        "fastserve_objects",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        _view_id(nullable=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("from_revision", sa.Integer, nullable=False),
        sa.Column("to_revision", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_index("fastserve_objects_project", "fastserve_objects", ["project", "from_revision"])
    op.create_index(
        "fastserve_objects_current",
        "fastserve_objects",
        ["project", "kind", "name", "version"],
        unique=True,
        sqlite_where=sa.text("to_revision IS NULL"),
        postgresql_where=sa.text("to_revision IS NULL"),
    )


def _make_runs() -> None:
    op.create_table(
        "fastserve_runs",
        sa.Column("run_id", sa.Integer, primary_key=True),
        _view_id(),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("start_us", sa.BigInteger),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("started_us", sa.BigInteger, nullable=False),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("fastserve_runs_view", "fastserve_runs", ["view_id", "run_id"])
    run_id = sa.ForeignKey("fastserve_runs.run_id")
    op.create_table(
        "fastserve_partitions",
        sa.Column("run_id", sa.Integer, run_id, primary_key=True, autoincrement=False),
        sa.Column("date", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("finished_us", sa.BigInteger, nullable=False),
    )
    _make_coverage()


def _make_coverage() -> None:
    op.create_table(
        "fastserve_intervals",
        sa.Column("id", _ID, primary_key=True),
        _view_id(),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("start_us", sa.BigInteger),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.Integer),
        sa.Column("finished_us", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("fastserve_intervals_view", "fastserve_intervals", ["view_id", "target", "id"])
    op.create_table(
        "fastserve_cursors",
        _view_id(key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("event_hw_us", sa.BigInteger),
        sa.Column("created_hw_us", sa.BigInteger),
    )
