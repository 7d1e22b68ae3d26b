"""`fastserve init`: a repo that works as written."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from fastserve.cli.options import echo_json, json_option
from fastserve.config import FILE_NAME
from fastserve.errors import ConfigError

TOML: Final = """project = "{project}"
registry = "sqlite:///.fastserve/registry.db"   # or postgresql://user:password@host/database
online_store = "lmdb://.fastserve/online"       # or redis://host:6379/0
offline_store = ".fastserve/offline"            # or s3://bucket/path, gs://bucket/path
"""
FEATURES: Final = '''"""The features of this repo. `fastserve plan` shows what a change here would do."""

from fastserve import Entity, FeatureService, FeatureView, Field, FileSource, Float64, Int64

driver = Entity("driver", join_keys="driver_id", dtype=Int64, description="a driver")

driver_hourly = FeatureView(
    "driver_hourly",
    entities=[driver],
    schema=[
        Field("trips", Int64, default=0, description="trips in the last hour"),
        Field("acceptance", Float64, description="share of offers accepted"),
    ],
    source=FileSource(
        "data/driver_hourly.csv", timestamp_field="event_timestamp", created_timestamp_column="created"
    ),
    ttl="1d",
)

driver_activity = FeatureService("driver_activity", features=[driver_hourly])
'''
NEXT: Final = """wrote a repo to {folder}. Try:

  cd {folder}
  fastserve plan
  fastserve apply
  materializer run --incremental
  fastserve get --service driver_activity -e driver_id=1001,1002,9999
  fastserve serve &
  curl --http2-prior-knowledge -d '{{"feature_service": "driver_activity", "entities": {{"driver_id": [1001]}}}}' \\
       http://127.0.0.1:6566/online-features/batch"""


@click.command("init")
@click.argument("folder", default=".")
@json_option
@click.option("--project", default=None, help="Default: the folder's name.")
def init_command(folder: str, as_json: bool, project: str | None) -> None:
    """Write a working example repo to FOLDER; never over an existing one."""
    root = Path(folder)
    name = project or root.resolve().name.replace("-", "_").replace(".", "_")
    if not name.isidentifier() or not name.isascii():
        raise ConfigError(f"{name!r} is no project name", hint="give one: --project my_features")
    files = (root / FILE_NAME, root / "features.py", root / "data" / "driver_hourly.csv")
    for path in files:
        if path.exists():
            raise ConfigError("is there already", where=str(path), hint="name an empty folder")
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / FILE_NAME).write_text(TOML.format(project=name))
    (root / "features.py").write_text(FEATURES)
    _write_data(root / "data" / "driver_hourly.csv")
    if as_json:
        echo_json({"project": name, "files": [str(path) for path in files]})
    else:
        click.echo(NEXT.format(folder=folder))


def _write_data(path: Path) -> None:
    """Two days of hourly rows for three drivers, ending an hour ago."""
    last = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["driver_id", "event_timestamp", "created", "trips", "acceptance"])
        for hour in range(48):
            moment = last - timedelta(hours=47 - hour)
            for driver in (1001, 1002, 1003):
                trips = (driver * 7 + hour * 5) % 11
                acceptance = round(0.5 + ((driver + hour * 3) % 50) / 100, 2)
                created = moment + timedelta(minutes=5)
                writer.writerow([driver, moment.isoformat(), created.isoformat(), trips, acceptance])
