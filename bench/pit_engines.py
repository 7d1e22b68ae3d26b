"""Who joins features to labels, point in time: each takes its own kind of table, made before the clock runs.

A system is a function (labels, rows, names) -> (run, answer): `run()` is timed, `answer(what it returned)` gives the
features as Arrow columns in the labels' order and is not. `plain` is the join as its documentation has it; `taken`
the best way found by hand: join only keys, times and row numbers, put them in the labels' order, then take the rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Columns = Sequence[pa.ChunkedArray]
System = Callable[[pa.Table, pa.Table, list[str]], tuple[Callable[[], Any], Callable[[Any], Columns]]]


def fastserve(labels: pa.Table, rows: pa.Table, names: list[str], kernel: str = "native") -> Any:
    """What `get_historical_features` calls for a view once its rows are read."""
    from fastserve import Entity, FeatureView, Field  # noqa: PLC0415
    from fastserve.codec.layout import Layout  # noqa: PLC0415
    from fastserve.registry import RegisteredView  # noqa: PLC0415
    from fastserve.types import parse_dtype  # noqa: PLC0415
    from materializer.pit import asof_py, gather_py, join  # noqa: PLC0415

    if kernel == "py":
        vars(join).update(find_rows=asof_py.find_rows, gather=gather_py.gather)
    key_type = "int64" if pa.types.is_int64(rows["key"].type) else "string"
    dtype = "float64" if pa.types.is_float64(rows[names[0]].type) else "float32"
    view = FeatureView("v", entities=[Entity("key", dtype=key_type)], schema=[Field(n, dtype) for n in names])
    layout = Layout(1, tuple(names), (parse_dtype(dtype),) * len(names))
    rv = RegisteredView(view, 1, {"key": key_type}, (layout,))

    def run() -> Any:
        # A source without created times: known when they happened, as the canonical schema has it.
        canonical = rows.rename_columns(["key", "event_timestamp", *names])
        canonical = canonical.append_column("created_timestamp", canonical["event_timestamp"])
        keys = {
            "key": labels["key"]
            .combine_chunks()
            .cast(pa.int64() if key_type == "int64" else pa.large_string())
        }
        times = labels["t"].cast(pa.int64()).to_numpy()
        return join.join_view(keys, times, canonical, rv, names)

    return run, lambda made: list(made.values())


def twin(labels: pa.Table, rows: pa.Table, names: list[str]) -> Any:
    """The same on numpy and pyarrow alone."""
    return fastserve(labels, rows, names, "py")


def duckdb_plain(labels: pa.Table, rows: pa.Table, names: list[str]) -> Any:
    """ASOF JOIN of tables of DuckDB's own."""
    con = _duckdb(labels, rows)
    query = f"SELECT l.id, {', '.join(names)} FROM l ASOF LEFT JOIN r ON l.key = r.key AND l.t >= r.ts"
    return lambda: con.sql(query).to_arrow_table(), lambda made: _ordered(made, names)


def duckdb_taken(labels: pa.Table, rows: pa.Table, names: list[str]) -> Any:
    """ASOF JOIN of keys, times and row numbers; pyarrow takes the rows."""
    numbered = rows.select(["key", "ts"]).append_column("row", pa.array(np.arange(len(rows))))
    con, values = _duckdb(labels, numbered), rows.select(names).combine_chunks()
    query = "SELECT l.id, r.row FROM l ASOF LEFT JOIN r ON l.key = r.key AND l.t >= r.ts"

    def run() -> Any:
        return _taken(values, con.sql(query).to_arrow_table(), len(labels))

    return run, lambda made: [made[name] for name in names]


def _duckdb(labels: pa.Table, rows: pa.Table) -> Any:
    import duckdb  # noqa: PLC0415

    con = duckdb.connect()
    con.execute(f"SET threads = {len(os.sched_getaffinity(0))}")
    con.execute("SET preserve_insertion_order = false")
    for name, table in (("l", labels), ("r", rows)):
        con.register("given", table)
        con.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
        con.unregister("given")
    return con


def polars_plain(labels: pa.Table, rows: pa.Table, names: list[str]) -> Any:
    """join_asof, of what it wants sorted first."""
    left, right = _polars(labels, "t"), _polars(rows, "ts")

    def run() -> Any:
        return left.sort("t").join_asof(
            right.sort("ts"), left_on="t", right_on="ts", by="key", coalesce=False
        )

    return run, lambda made: _ordered(made.select(["id", *names]).to_arrow(), names)


def polars_taken(labels: pa.Table, rows: pa.Table, names: list[str]) -> Any:
    """join_asof of keys, times and row numbers; polars takes the rows."""
    import polars as pl  # noqa: PLC0415

    left, values = _polars(labels, "t"), pl.DataFrame(rows.select(names))
    right = _polars(rows.select(["key", "ts"]).append_column("row", pa.array(np.arange(len(rows)))), "ts")

    def run() -> Any:
        found = left.sort("t").join_asof(right.sort("ts"), left_on="t", right_on="ts", by="key").sort("id")
        return (
            values[found["row"]]
            if found["row"].null_count() == 0
            else values.select(pl.all().gather(found["row"]))
        )

    return run, lambda made: [made[name].to_arrow() for name in names]


def _polars(table: pa.Table, by: str) -> Any:
    """A frame; one that is in order of time says so, and is not sorted again."""
    import polars as pl  # noqa: PLC0415

    frame: Any = pl.from_arrow(table)
    return frame.set_sorted(by) if frame[by].is_sorted() else frame


def pandas_plain(labels: pa.Table, rows: pa.Table, names: list[str]) -> Any:
    """merge_asof, of what it wants sorted first."""
    import pandas as pd  # noqa: PLC0415

    left, right = labels.to_pandas(), rows.to_pandas()

    def run() -> Any:
        return pd.merge_asof(_sorted(left, "t"), _sorted(right, "ts"), left_on="t", right_on="ts", by="key")

    return run, lambda made: _ordered(pa.Table.from_pandas(made[["id", *names]]), names)


def pandas_taken(labels: pa.Table, rows: pa.Table, names: list[str]) -> Any:
    """merge_asof of keys, times and row numbers; pyarrow takes the rows."""
    import pandas as pd  # noqa: PLC0415

    left, right = labels.to_pandas(), rows.select(["key", "ts"]).to_pandas()
    right["row"] = np.arange(len(rows))
    values = rows.select(names).combine_chunks()

    def run() -> Any:
        made = pd.merge_asof(_sorted(left, "t"), _sorted(right, "ts"), left_on="t", right_on="ts", by="key")
        return _taken(values, pa.Table.from_pandas(made[["id", "row"]]), len(labels))

    return run, lambda made: [made[name] for name in names]


def _sorted(frame: Any, by: str) -> Any:
    return frame if frame[by].is_monotonic_increasing else frame.sort_values(by, kind="stable")


def _taken(values: pa.Table, found: pa.Table, n: int) -> pa.Table:
    """The rows by number, in the labels' order."""
    numbers = pc.fill_null(found["row"].cast(pa.float64()).cast(pa.int64()), -1).to_numpy()
    at = np.empty(n, np.int64)
    at[found["id"].to_numpy()] = numbers
    return values.take(pa.array(at, mask=at < 0))


def _ordered(made: pa.Table, names: list[str]) -> Columns:
    order = pc.sort_indices(made["id"])
    return [made[name].take(order) for name in names]


SYSTEMS: Final[dict[str, System]] = {
    "fastserve": fastserve,
    "fastserve, numpy twin": twin,
    "DuckDB": duckdb_plain,
    "DuckDB, taken": duckdb_taken,
    "polars": polars_plain,
    "polars, taken": polars_taken,
    "pandas": pandas_plain,
    "pandas, taken": pandas_taken,
}
