"""The data of load tests and benchmarks: the value of a feature is a function of (seed, entity, feature).

So that any process can say what any answer must be, without having been told.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

ROOT: Final = Path(__file__).resolve().parents[1]
_CHUNK_ROWS: Final = 100_000

_TOML: Final = """project = "load"
registry = "sqlite:///.fastserve/registry.db"
online_store = "{online_store}"
offline_store = ".fastserve/offline"
"""
_FEATURES: Final = '''"""Made by loadtest/data.py: {features} features of {entities:,} entities."""

from fastserve import Entity, FeatureService, FeatureView, Field, FileSource

item = Entity("item", join_keys="{key}", dtype="int64")
load = FeatureView(
    "{view}",
    entities=[item],
    schema=[Field(f"f{{i:02d}}", "float32") for i in range({features})],
    source=FileSource("data/load/"),
    offline=False,
)
load_service = FeatureService("{view}", features=[load])
'''


@dataclass(frozen=True)
class DataSet:
    """Rows of one view, ``load``, and of a service of that name.

    Attributes:
        entities: how many; their ids are 0 to entities - 1.
        features: float32 features a row, ``f00``, ``f01``, ...
        seed: another seed gives other values.
    """

    entities: int = 100_000
    features: int = 50
    seed: int = 1
    view: str = "load"
    key: str = "item_id"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names, in order."""
        return tuple(f"f{i:02d}" for i in range(self.features))

    def values(self, ids: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """float32[n, features]: the values of n entities, in [0, 1).

        They are multiples of 2**-24, drawn by SplitMix64, so that a float32 holds them exactly, and JSON needs as
        many digits as it does for real data.
        """
        n: npt.NDArray[np.uint64] = np.asarray(ids, np.uint64)
        with np.errstate(over="ignore"):
            z: npt.NDArray[Any] = n[:, None] * np.uint64(self.features) + np.arange(
                self.features, dtype=np.uint64
            )
            z = (z + np.uint64(self.seed << 40)) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray((z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24), np.float32)

    # ---- a repo of it ----

    def write_repo(self, folder: Path, online_store: str) -> None:
        """Write fastserve.toml, features.py and the source's Parquet files into a folder; what was there goes.

        Args:
            online_store: its URL, ``redis://127.0.0.1:6379/0`` say.
        """
        source = folder / "data" / "load"
        source.mkdir(parents=True, exist_ok=True)
        for old in source.glob("*.parquet"):
            old.unlink()
        (folder / "fastserve.toml").write_text(_TOML.format(online_store=online_store))
        text = _FEATURES.format(features=self.features, entities=self.entities, key=self.key, view=self.view)
        (folder / "features.py").write_text(text)
        now_us = time.time_ns() // 1_000
        for number, start in enumerate(range(0, self.entities, _CHUNK_ROWS)):
            ids = np.arange(start, min(start + _CHUNK_ROWS, self.entities))
            self._write_parquet(source / f"{number:05d}.parquet", ids, now_us)

    def _write_parquet(self, path: Path, ids: npt.NDArray[np.int64], now_us: int) -> None:
        import pyarrow as pa  # noqa: PLC0415  (who only checks answers needs no pyarrow)
        import pyarrow.parquet as pq  # noqa: PLC0415

        values = self.values(ids)
        columns: dict[str, Any] = {self.key: pa.array(ids, pa.int64())}
        columns["event_timestamp"] = pa.array(np.full(len(ids), now_us), pa.timestamp("us", "UTC"))
        columns |= {name: pa.array(values[:, i].copy()) for i, name in enumerate(self.names)}
        pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)

    def load(self, folder: Path) -> None:
        """Register the repo's definitions and materialize them into its online store, with the project's commands.

        Raises:
            RuntimeError: one of them failed; says what it said.
        """
        run_tool("fastserve.cli.main", "apply", "--repo", str(folder))
        run_tool("materializer.cli", "run", "--incremental", "--repo", str(folder))


def tool_environ() -> dict[str, str]:
    """The environment in which this checkout's modules are found, installed or not."""
    path = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)}


def run_tool(module: str, *arguments: str) -> str:
    """Run one of the project's commands; its output.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=tool_environ(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command[1:])} ended with {done.returncode}:\n{done.stderr}{done.stdout}"
        )
    return done.stdout
