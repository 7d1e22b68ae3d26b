"""The real Feast as a peer: an environment of its own (FASTSERVE_FEAST_VENV; `make feast-conformance` makes one)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from bench.suite import FEAST

VENV: Final = FEAST.parents[1].absolute()
ENV: Final = {"FEAST_USAGE": "False", "PATH": f"{VENV}/bin:{os.environ['PATH']}"}

_FEATURE_STORE: Final = """
project: bench
registry: registry.db
provider: local
online_store: {online}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""
LOAD: Final = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
source = FileSource(path="data.parquet", timestamp_field="event_timestamp")
load = FeatureView(name="load", entities=[user], ttl=timedelta(days=3650), source=source,
                   schema=[Field(name=f"f{i:02}", dtype=Float32) for i in range(50)])
model = FeatureService(name="model", features=[load])
"""
"""50 float32 by user, of data.parquet: the rows of bench/world.py."""


def is_there() -> bool:
    """Whether it is; where it is not, that is said."""
    if not FEAST.exists():
        print(f"left out, there is no {FEAST}: Feast's side")
    return FEAST.exists()


def make_repo(folder: Path, online: str, definitions: str) -> None:
    """A repo of Feast's, applied.

    Args:
        online: its online store, as feature_store.yaml has it.

    Raises:
        SystemExit: `feast apply` failed; with what it said.
    """
    (folder / "feature_store.yaml").write_text(_FEATURE_STORE.format(online=online))
    (folder / "definitions.py").write_text(definitions)
    _run([f"{VENV}/bin/feast", "apply"], folder)


def python(script: str, folder: Path, *arguments: str) -> str:
    """Run a script with Feast's Python in a repo; what it prints.

    Raises:
        SystemExit: it failed; with what it said.
    """
    return _run([f"{VENV}/bin/python", "-c", script, *arguments], folder)


def versions() -> dict[str, str]:
    """For the results' stamp."""
    shown = subprocess.run([f"{VENV}/bin/pip", "show", "feast"], capture_output=True, text=True, check=True)
    return {"feast": shown.stdout.splitlines()[1].split()[1]}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | ENV, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[:2]}: {done.stderr}")
    return done.stdout
