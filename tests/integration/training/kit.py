"""A real repo per test: files, a registry in SQLite, Delta tables; and the checks every training set must pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
from deltalake import write_deltalake

from fastserve import Entity, FeatureStore, FeatureView, Field, FileSource
from fastserve.offline import files, pieces
from fastserve.timeutil import parse_timestamp
from materializer import joining, training
from materializer.budget import Budget
from materializer.pit import stow
from materializer.shards import join, plan
from materializer.shards.plan import Limits
from materializer.training import TrainingSet, to_spine
from tests.carried import Carried
from tests.oracles.bits import bits

UTC_US = pa.timestamp("us", "UTC")
T0 = parse_timestamp("2024-03-10T00:00:00Z")
FORMATS = ("parquet", "csv", "arrow", "delta")
BACKENDS = (*FORMATS, "offline")
"""Where rows are read from: a source of each format, or the view's offline table."""


def ts(offsets: Sequence[int | None]) -> pa.Array:
    """Microseconds after T0 as timestamps."""
    return pa.array([None if o is None else T0 + o for o in offsets], pa.int64()).cast(UTC_US)


def write_source(folder: Path, name: str, table: pa.Table, format: str) -> FileSource:
    """The table as a source `name` of that format, with the columns `ts` and, if there, `created`."""
    path = folder / f"{name}.{format}"
    if format == "parquet":
        pq.write_table(table, path, row_group_size=3)
    elif format == "csv":
        pa.csv.write_csv(table, path)
    elif format == "arrow":
        pa.feather.write_feather(table, path, chunksize=2)
    else:
        write_deltalake(str(path), table)
    created = "created" if "created" in table.column_names else None
    return FileSource(path.name, "ts", created, format=format, name=name)


class Repo:
    """A repo directory, its store, and what is declared in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fastserve.toml").write_text('project = "tests"\nonline_store = "memory://training"\n')
        self.store = FeatureStore(folder)
        self.objects: list[Any] = []

    @classmethod
    def of(cls, store: FeatureStore) -> Repo:
        """A repo that is there, with definitions of its own."""
        made = object.__new__(cls)
        made.folder, made.store, made.objects = store.config.repo, store, []
        return made

    def view(
        self, name: str, table: pa.Table, schema: Sequence[Field], *, backend: str = "parquet", **options: Any
    ) -> FeatureView:
        """Write the table as a source, declare a view of it; with backend "offline" materialize it too."""
        keys: Mapping[str, str] = options.pop("keys", {"u": "int64"})
        mapping = options.pop("field_mapping", None)
        source = write_source(self.folder, name, table, "parquet" if backend == "offline" else backend)
        if mapping:
            source = FileSource(source.path, source.timestamp_field, source.created_timestamp_column,
                                field_mapping=mapping, format=source.format, name=name)  # fmt: skip
        entities = [Entity(f"{name}_entity", list(keys), list(keys.values()))] if keys else []
        view = FeatureView(name, entities=entities, schema=schema, source=source, **options)
        self.objects += [*entities, view]
        self.store.apply([*entities, view])
        if backend == "offline":
            self.materialize(name)
        return view

    def materialize(self, name: str, start: int = -(10**14), end: int = 10**13) -> None:
        """Fill the offline table of a view with the event times T0 + [start, end]."""
        done = self.store.materialize(T0 + start, T0 + end, [name], target="offline")
        for view in done.views:
            if view.error is not None:
                raise view.error
        assert done.status == "ok"

    def train(self, spine: Any, features: Any, **options: Any) -> TrainingSet:
        """A training set, after the checks: rows kept, in order, labels untouched, types as declared."""
        before = to_spine(spine).table
        made = self.store.get_historical_features(spine, features, **options)
        table = made.to_arrow()
        assert len(made) == table.num_rows == before.num_rows
        assert table.column_names[: before.num_columns] == before.column_names
        for name in before.column_names:
            assert table[name].type == before[name].type
            assert bits(table[name]) == bits(before[name]), name
        table.validate(full=True)
        assert_same(table, self.tightly(spine, features, **options))
        assert_same(table, self.in_shards(spine, features, **options))
        return made

    def tightly(self, spine: Any, features: Any, **options: Any) -> pa.Table:
        """The same within hardly any memory: a few labels at a time, all values by way of the disk."""
        n = len(to_spine(spine).table)
        with small_steps(n):
            made = self.store.get_historical_features(spine, features, **options, memory="1GiB")
            return pa.Table.from_batches(made.batches(), made.schema)

    def in_shards(self, spine: Any, features: Any, **options: Any) -> pa.Table:
        """The same by tasks, as on a cluster: few rows in each, shards cut by time, all that is handed on pickled."""
        n = len(to_spine(spine).table)
        few = 2 if n < 50 else 5_000
        with small_steps(n) as patched, Carried() as engine:
            for name in ("DEAL_ROWS", "SHARD_ROWS"):
                patched.enter_context(patch.object(plan, name, few))
            patched.enter_context(patch.object(join, "RANGE_ROWS", max(2, n // 3)))
            patched.enter_context(
                patch.object(training.Limits, "of", lambda *_: Limits(few, 2 * few, 64 * few))
            )
            made = self.store.get_historical_features(
                spine, features, **options, memory="1GiB", engine=engine, work=str(self.folder / "work")
            )
            table = pa.Table.from_batches(made.batches(), made.schema)
            assert_same(table, made.to_arrow())
        del made  # with it goes what was handed on
        assert not list((self.folder / "work").iterdir())
        return table


@contextmanager
def small_steps(n: int) -> Iterator[ExitStack]:
    """Within, n labels are joined some at a time, in ranges of a few, with pieces of a row or two."""
    budget = Budget(2, max(4, n // 2 + 1), 3, 0)
    with ExitStack() as patched:
        for module in (stow, joining, training):
            patched.enter_context(patch.object(module, "RANGE_ROWS", max(3, n // 5)))
        for module, name in ((files, "RUN_BYTES"), (pieces, "KEY_ROWS"), (pieces, "VALUE_ROWS")):
            patched.enter_context(patch.object(module, name, 2 if n < 50 else 5_000))
        patched.enter_context(patch.object(training.Budget, "of", lambda *_: budget))
        yield patched


def assert_same(one: pa.Table, other: pa.Table) -> None:
    """Same columns, same bits."""
    assert one.schema.equals(other.schema)
    for name in one.column_names:
        assert bits(one[name]) == bits(other[name]), name


def values(made: TrainingSet, name: str = "v") -> list[Any]:
    """One output column, comparable bit by bit."""
    return bits(made.to_arrow()[name])
