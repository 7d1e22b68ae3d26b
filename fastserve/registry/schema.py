"""The registry's tables. Definitions are temporal rows: nothing that was applied is ever rewritten.

An object's row holds from `from_revision` until `to_revision` (null: it still holds), so the state at any
revision is one range query. The migrations build these tables; a test compares the two. They also make the
partial index `fastserve_objects_current`, by which the database itself refuses two current rows of one object
(to declare it here would import the PostgreSQL dialect, 20 ms, for everybody).
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

HEAD: Final = "0008"
"""The schema version this release writes: the newest migration."""

VERSION_TABLE: Final = "fastserve_schema"

metadata: Final = sa.MetaData()
_ID: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts up INTEGER keys only

meta: Final = sa.Table(
    "fastserve_meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
projects: Final = sa.Table(
    "fastserve_projects",
    metadata,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
)
revisions: Final = sa.Table(
    "fastserve_revisions",
    metadata,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("applied_us", sa.BigInteger, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
)
views: Final = sa.Table(
    "fastserve_views",
    metadata,
    sa.Column("view_id", sa.Integer, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Index("fastserve_views_project", "project"),
    sqlite_autoincrement=True,  # an id is never given twice, not even after a delete
)
objects: Final = sa.Table(
    "fastserve_objects",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id)),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("from_revision", sa.Integer, nullable=False),
    sa.Column("to_revision", sa.Integer),
    sa.Index("fastserve_objects_project", "project", "from_revision"),
    sqlite_autoincrement=True,
)
layouts: Final = sa.Table(
    "fastserve_layouts",
    metadata,
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), primary_key=True, autoincrement=False),
    sa.Column("layout_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fields", sa.Text, nullable=False),  # JSON [[name, dtype], ...] in row order
    sa.Column("from_revision", sa.Integer, nullable=False),
)
runs: Final = sa.Table(
    "fastserve_runs",
    metadata,
    sa.Column("run_id", sa.Integer, primary_key=True),
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), nullable=False),
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
    sa.Index("fastserve_runs_view", "view_id", "run_id"),
    sqlite_autoincrement=True,
)
partitions: Final = sa.Table(
    "fastserve_partitions",
    metadata,
    sa.Column("run_id", sa.Integer, sa.ForeignKey(runs.c.run_id), primary_key=True, autoincrement=False),
    sa.Column("date", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("finished_us", sa.BigInteger, nullable=False),
)
intervals: Final = sa.Table(
    "fastserve_intervals",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("start_us", sa.BigInteger),
    sa.Column("end_us", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("run_id", sa.Integer),
    sa.Column("finished_us", sa.BigInteger, nullable=False),
    sa.Index("fastserve_intervals_view", "view_id", "target", "id"),
    sqlite_autoincrement=True,
)
cursors: Final = sa.Table(
    "fastserve_cursors",
    metadata,
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), primary_key=True, autoincrement=False),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("event_hw_us", sa.BigInteger),
    sa.Column("created_hw_us", sa.BigInteger),
)
jobs: Final = sa.Table(
    "fastserve_jobs",
    metadata,
    sa.Column("job_id", sa.Integer, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("args", sa.Text, nullable=False),  # JSON object
    sa.Column("idempotency_key", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("cancel_us", sa.BigInteger),  # when somebody asked for its end
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("submitted_us", sa.BigInteger, nullable=False),
    sa.Column("started_us", sa.BigInteger),
    sa.Column("heartbeat_us", sa.BigInteger),
    sa.Column("finished_us", sa.BigInteger),
    sa.Column("pid", sa.Integer),
    sa.Column("pid_start", sa.BigInteger),  # of /proc: a pid may be given to another process
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("progress", sa.Text, nullable=False),  # JSON object
    sa.Column("result", sa.Text, nullable=False),  # JSON object
    sa.Column("error", sa.Text, nullable=False),  # JSON object, or nothing
    sa.Index("fastserve_jobs_status", "project", "status", "job_id"),
    sa.Index("fastserve_jobs_key", "project", "idempotency_key", unique=True),
    sqlite_autoincrement=True,
)
training_datasets: Final = sa.Table(
    "fastserve_training_datasets",
    metadata,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("dataset_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("manifest", sa.Text, nullable=False),  # JSON
)
online_ids: Final = sa.Table(
    "fastserve_online_ids",
    metadata,
    sa.Column("online_id", sa.Integer, sa.ForeignKey(views.c.view_id), primary_key=True, autoincrement=False),
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), nullable=False),
    sa.Column("made_us", sa.BigInteger, nullable=False),
    sa.Column("live_us", sa.BigInteger),  # when its rows became the served ones, the last time
    sa.Column("gone_us", sa.BigInteger),  # when its rows were removed
    sa.Index("fastserve_online_ids_view", "view_id"),
)
backfills: Final = sa.Table(
    "fastserve_backfills",
    metadata,
    sa.Column("backfill_id", sa.Integer, primary_key=True),
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), nullable=False),
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
    sa.Index("fastserve_backfills_view", "view_id", "backfill_id"),
    sqlite_autoincrement=True,
)
backfill_dates: Final = sa.Table(
    "fastserve_backfill_dates",
    metadata,
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), primary_key=True, autoincrement=False),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("date", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("until_us", sa.BigInteger, nullable=False),  # the event time up to which it was asked for
    sa.Column(
        "source", sa.Text, nullable=False
    ),  # which files it was read from, hashed; '' for none to trust
    sa.Column("digest", sa.Text, nullable=False),  # of its rows
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("rows_new", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("backfill_id", sa.Integer, nullable=False),
    sa.Column("finished_us", sa.BigInteger),
)
dataset_views: Final = sa.Table(
    "fastserve_dataset_views",
    metadata,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("dataset_id", sa.Text, primary_key=True),
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), primary_key=True, autoincrement=False),
    sa.Column("definition_hash", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),  # JSON: a table and its version, or a source's files
    sa.ForeignKeyConstraint(
        ["project", "dataset_id"],
        ["fastserve_training_datasets.project", "fastserve_training_datasets.dataset_id"],
    ),
    sa.Index("fastserve_dataset_views_view", "view_id"),
)
upkeep: Final = sa.Table(
    "fastserve_upkeep",
    metadata,
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), primary_key=True, autoincrement=False),
    sa.Column("optimized_us", sa.BigInteger),
    sa.Column("removed_before_us", sa.BigInteger),
    sa.Column("removed_retention_us", sa.BigInteger),
    sa.Column("ordered", sa.Text, nullable=False),  # JSON object: date -> rows
)
statistics: Final = sa.Table(
    "fastserve_statistics",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("view_id", sa.Integer, sa.ForeignKey(views.c.view_id), nullable=False),
    sa.Column("start_us", sa.BigInteger, nullable=False),  # the first event time, and one after the last
    sa.Column("end_us", sa.BigInteger, nullable=False),
    sa.Column("late", sa.Boolean, nullable=False),  # only rows that no run before it had read
    sa.Column("run_id", sa.Integer),  # null: of several runs
    sa.Column("body", sa.LargeBinary, nullable=False),  # fastserve/statistics/view.py
    sa.Index("fastserve_statistics_view", "view_id", "start_us"),
    sqlite_autoincrement=True,
)
