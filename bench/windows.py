"""Windows at labels' times beside DuckDB's range windows: count, sum and max over an hour, a day and 30 days.

Events and labels are one Arrow table each, in memory; DuckDB has its own tables of them before the clock runs. It has
no join that folds a range, so labels stand among the events and windows are asked of both. Counts and maxima are
compared bit by bit; sums of both with the exact ones, which ours are.

    python -m bench.windows [--events N]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from bench.measure import Figure, alternate
from bench.record import Table, Target, save
from bench.scale import ROUNDS, scaled
from fastserve import AggregatedFeatureView, Aggregation, Entity, EventSource, Field, FileSource
from fastserve.codec.layout import Layout
from fastserve.offline.events import EventRows, event_rows
from fastserve.registry import RegisteredView
from fastserve.registry.snapshot import fields_of
from fastserve.timeutil import DAY_US
from materializer.pit.chunks import Labels, cores
from materializer.windows.join import join_windows

EVENTS: Final = scaled(10_000_000, 20_000)
A_LABEL: Final = 10  # events
AN_ENTITY: Final = 100  # events
SPAN_US: Final = 90 * DAY_US
WINDOWS: Final = {"1h": DAY_US // 24, "1d": DAY_US, "30d": 30 * DAY_US}
FUNCTIONS: Final = {"count": "count(one)", "amount_sum": "sum(amount)", "amount_max": "max(amount)"}
OURS: Final = "fastserve"
DUCKDB: Final = "DuckDB"


def main(arguments: Sequence[str] = ()) -> int:
    """Measure and write bench/results/windows.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=EVENTS)
    asked = parser.parse_args(arguments)
    events, labels = inputs(asked.events)
    connection = duckdb.connect()
    for name, given in (("events", events), ("labels", labels)):
        connection.register(f"given_{name}", given)
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given_{name}")
    rows, batches = view_of(), canonical(events)
    systems = {
        OURS: partial(timed, partial(ours, labels, batches, rows)),
        DUCKDB: partial(timed, partial(theirs, connection)),
    }
    compare(ours(labels, batches, rows), theirs(connection), events, labels)
    found = alternate(systems, rounds=ROUNDS)
    figures = {s: {q: Figure(tuple(v)) for q, v in by.items()} for s, by in found.items()}
    table = Table("count, sum, max over 1h, 1d, 30d", {"time": "s", "over_fastserve": "x", "cpu": "s"})
    for system, of in figures.items():
        table.add(system, time=of["s"], over_fastserve=of["s"].over(figures[OURS]["s"]), cpu=of["cpu"])
    ratio = figures[DUCKDB]["s"].over(figures[OURS]["s"]).median
    save(
        "windows",
        "Windows at labels' times",
        [table],
        targets=[
            Target("windows at labels' times: times DuckDB's range windows", ratio, at_least=5, reach=20)
        ],
        notes=[
            f"{len(labels):,} labels, {len(events):,} events, {asked.events // AN_ENTITY:,} entities, hop 0; "
            "both on all cores.",
            "Counts and maxima are equal; fastserve's sums are math.fsum's, DuckDB's are off by the order of adding.",
        ],
        versions={"duckdb": version("duckdb")},
    )
    return 0


def inputs(n: int) -> tuple[pa.Table, pa.Table]:
    """Events in order of time, as a log is: key, t, amount; labels anywhere: id, key, t."""
    draw = np.random.default_rng(11)
    entities, labels = max(n // AN_ENTITY, 2), n // A_LABEL
    events = {
        "key": draw.integers(0, entities, n),
        "t": np.sort(draw.integers(0, SPAN_US, n)),
        "amount": np.round(draw.gamma(2, 30, n), 2),
    }
    asked = {
        "id": np.arange(labels),
        "key": draw.integers(0, entities, labels),
        "t": draw.integers(0, SPAN_US, labels),
    }
    return pa.table(events), pa.table(asked)


def view_of() -> EventRows:
    """The view, as it is read."""
    source = EventSource("events", FileSource("none"), schema=[Field("amount", "float64")])
    windows = list(WINDOWS)
    view = AggregatedFeatureView(
        "bench",
        entities=[Entity("key", "key", "int64")],
        source=source,
        aggregations=[
            Aggregation("*", "count", windows=windows, hop=0),
            Aggregation("amount", "sum", windows=windows, hop=0),
            Aggregation("amount", "max", windows=windows, hop=0),
        ],
    )
    return event_rows(RegisteredView(view, 1, {"key": "int64"}, (Layout(1, *fields_of(view)),)))


def canonical(events: pa.Table) -> list[pa.RecordBatch]:
    """Events as they are read from a source."""
    times = events["t"].cast(pa.timestamp("us", "UTC"))
    columns = {"key": events["key"], "event_timestamp": times, "created_timestamp": times}
    columns |= {"amount": events["amount"], "_layout": pa.array(np.ones(len(events), np.int32))}
    return pa.table(columns).to_batches(1 << 17)  # type: ignore[no-any-return]


def ours(labels: pa.Table, batches: Sequence[pa.RecordBatch], rows: EventRows) -> Mapping[str, pa.Array]:
    """All features of all labels."""
    asked = Labels([labels["key"].combine_chunks()], labels["t"].to_numpy(), ["int64"])
    features = [f"{function}_{window}" for function in FUNCTIONS for window in WINDOWS]
    return join_windows(asked, batches, rows, features, threads=cores())


def theirs(connection: Any) -> Mapping[str, pa.Array]:
    """The same in SQL."""
    folds = ", ".join(f"{sql} OVER w{w} AS {name}_{w}" for name, sql in FUNCTIONS.items() for w in WINDOWS)
    frames = ", ".join(
        f"w{w} AS (PARTITION BY key ORDER BY t RANGE BETWEEN {us - 1} PRECEDING AND CURRENT ROW)"
        for w, us in WINDOWS.items()
    )
    both = (
        "SELECT key, t, amount, 1 AS one, NULL::BIGINT AS id FROM events "
        "UNION ALL SELECT key, t, NULL, NULL, id FROM labels"
    )
    query = (
        f"SELECT * FROM (SELECT id, {folds} FROM ({both}) WINDOW {frames}) WHERE id IS NOT NULL ORDER BY id"
    )
    table = connection.sql(query).to_arrow_table()
    return {name: table[name] for name in table.column_names}


def timed(work: Any) -> Mapping[str, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"s": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def compare(mine: Mapping[str, Any], other: Mapping[str, Any], events: pa.Table, labels: pa.Table) -> None:
    """Stop where answers differ."""
    for window in WINDOWS:
        for function in ("count", "amount_max"):
            name = f"{function}_{window}"
            if mine[name].to_pylist() != other[name].to_pylist():
                raise SystemExit(f"{name}: fastserve and DuckDB differ")
        name = f"amount_sum_{window}"
        one, two = (np.array(made[name].to_pylist(), np.float64) for made in (mine, other))
        if not np.allclose(one, two, rtol=1e-12, atol=0, equal_nan=True):
            raise SystemExit(f"{name}: fastserve and DuckDB differ")
    check_sums(mine, events, labels)


def check_sums(mine: Mapping[str, Any], events: pa.Table, labels: pa.Table) -> None:
    """The exact sums of some labels, by math.fsum."""
    keys, times, amounts = (events[name].to_numpy() for name in ("key", "t", "amount"))
    for i in range(0, len(labels), max(len(labels) // 50, 1)):
        key, t = labels["key"][i].as_py(), labels["t"][i].as_py()
        for window, us in WINDOWS.items():
            inside = amounts[(keys == key) & (times > t - us) & (times <= t)]
            made = mine[f"amount_sum_{window}"][i].as_py()
            if made != (math.fsum(inside) if len(inside) else None):
                raise SystemExit(f"amount_sum_{window} of label {i} is {made}, not the exact sum")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
