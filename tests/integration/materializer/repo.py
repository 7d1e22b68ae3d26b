"""A repo directory with one source and a view over it, and naive ways to look into its stores."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowDecoder
from fastserve.codec.status import Status
from fastserve.config import Config
from fastserve.definitions import Definition, Entity, FeatureView, Field, FileSource
from fastserve.offline.delta import OfflineTable
from fastserve.online import open_store
from fastserve.registry import RegisteredView, Registry, open_registry
from fastserve.types import Float64, Int64, String
from materializer.run import Summary, materialize

ROOT = Path(__file__).parents[3]
TIME = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("event_timestamp", TIME),
        ("created", TIME),
        ("amount", pa.float64()),
        ("visits", pa.int64()),
        ("city", pa.string()),
    ]
)
DAY = 86_400_000_000
HOUR = 3_600_000_000
T0 = 1_357_000_000_000_000 // DAY * DAY  # a midnight of 2013

USER = Entity("user")


def stats_view(name: str = "stats", **options: Any) -> FeatureView:
    """A view over `data/` with a default in one feature."""
    source = FileSource("data", created_timestamp_column="created")
    schema = (Field("amount", Float64), Field("visits", Int64, default=-1), Field("city", String))
    return FeatureView(name, entities=[USER], schema=schema, source=source, **options)


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows with times in microseconds as a table of SCHEMA; what a row leaves out is null."""
    columns = []
    for field in SCHEMA:
        values = [row.get(field.name) for row in rows]
        kind = pa.int64() if field.type == TIME else field.type
        columns.append(pa.array(values, kind).cast(field.type))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


@dataclass(slots=True)
class Repo:
    """A repo on disk."""

    path: Path
    config: Config

    @classmethod
    def make(
        cls, path: Path, *objects: Definition, online: str = "lmdb://.fastserve/online?sync=off"
    ) -> Repo:
        """A repo with these definitions applied (by default `stats_view`) and no data."""
        (path / "data").mkdir(parents=True)
        (path / "fastserve.toml").write_text(f'project = "test"\nonline_store = "{online}"\n')
        repo = cls.at(path)
        with repo.registry() as registry:
            registry.apply([USER, *(objects or (stats_view(),))])
        return repo

    @classmethod
    def at(cls, path: Path) -> Repo:
        """The repo in a folder."""
        return cls(path, Config.from_repo(path, environ={}))

    def copy(self, path: Path, online: str = "") -> Repo:
        """The same repo in another place, with all it holds; perhaps on another online store."""
        shutil.copytree(self.path, path)
        if online:
            (path / "fastserve.toml").write_text(f'project = "test"\nonline_store = "{online}"\n')
        return Repo.at(path)

    def registry(self) -> Registry:
        return open_registry(self.config.registry, self.config.project)

    def view(self, name: str = "stats") -> RegisteredView:
        with self.registry() as registry:
            return registry.snapshot().view(name)

    def materialize(self, now_us: int, **options: Any) -> Summary:
        """A run in this process that must succeed."""
        summary = materialize(self.config, now_us=now_us, **options)
        assert summary.status == "ok", [view.error for view in summary.views]
        return summary

    def write(
        self, rows: Sequence[dict[str, Any]], name: str = "a.parquet", row_group: int = 1 << 20
    ) -> None:
        """A file of the source; names sort into the source's order."""
        pq.write_table(table_of(rows), self.path / "data" / name, row_group_size=row_group)

    def start(self, *args: str, command: str = "run", peak: Path | None = None) -> subprocess.Popen[str]:
        """`materializer run`, or another of its commands, in a process of its own; its peak memory into a file."""
        noted = [] if peak is None else ["bench.peak", str(peak)]
        words = [sys.executable, "-m", *noted, "materializer.cli", command, "--repo", str(self.path), *args]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=env, cwd=self.path)

    def cli(
        self, *args: str, command: str = "run", peak: Path | None = None
    ) -> tuple[int, dict[str, Any], str]:
        """Run it to the end: exit code, the one line of standard output, standard error."""
        process = self.start(*args, command=command, peak=peak)
        out, err = process.communicate(timeout=300)
        lines = out.splitlines()
        assert len(lines) == 1, (out, err)
        return process.returncode, json.loads(lines[0]), err

    # ---- what is in the stores ---------------------------------------------------------------

    def online_rows(self) -> dict[bytes, bytes]:
        """Every key and row of the online store, but for the marks of registry and views."""

        async def dump() -> dict[bytes, bytes]:
            store = open_store(self.config.online_store)
            try:
                keys = [key async for key in store.scan() if not key.startswith(b"!")]
                rows = store.get_many(keys)
                found = await rows if isinstance(rows, asyncio.Future) else rows
                return {k: r for k, r in zip(keys, found, strict=True) if r is not None}
            finally:
                await store.close()

        return asyncio.run(dump())

    def read_online(self, users: Sequence[str], now_us: int, name: str = "stats") -> list[tuple[Any, ...]]:
        """What serving would answer at a time, per user: (is there a row, amount, visits, city)."""
        registered = self.view(name)
        keys = KeyEncoder(registered.view_id, list(registered.join_keys.values())).encode([users], len(users))
        decoder = RowDecoder(
            {layout.layout_id: layout for layout in registered.layouts},
            registered.view.feature_names,
            registered.defaults,
        )
        held = self.online_rows()
        rows = [held.get(key) for key in keys]
        decoded = decoder.decode(keys, rows, now_us=now_us, ttl_us=registered.view.ttl_us)
        present = (decoded.row_status == Status.PRESENT).tolist()
        return list(zip(present, *(column.to_pylist() for column in decoded.columns), strict=True))

    def offline_table(self, name: str = "stats") -> pa.Table:
        """All rows of the offline table, sorted."""
        table = OfflineTable(self.config.offline_store, self.config.project, self.view(name))
        batches = list(table.read())
        if not batches:
            return pa.table({})
        found = pa.Table.from_batches(batches)
        return found.sort_by([(n, "ascending") for n in ("event_timestamp", "created_timestamp", "user")])

    def offline_rows(self, name: str = "stats") -> list[tuple[str, int, int]]:
        """(user, event, created) of all rows of the offline table, sorted."""
        table = self.offline_table(name)
        if not table.num_rows:
            return []
        times = [table[n].cast(pa.int64()).to_pylist() for n in ("event_timestamp", "created_timestamp")]
        return sorted(zip(table["user"].to_pylist(), *times, strict=True))
