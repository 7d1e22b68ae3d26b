"""One training set by one system, in a process of its own: `python -m bench.pit_bounded_run SYSTEM FOLDER`.

Reads FOLDER/labels.parquet and FOLDER/rows/*.parquet, writes FOLDER/out.parquet, in any order. Prints JSON: seconds,
those of CPU, the peak of the process's resident bytes. Asked by bench/pit_bounded.py, which looks at what was written.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.peak import resident

MEMORY: Final = "1.5GiB"


def bounded(folder: Path) -> Callable[[], object]:
    """fastserve within a budget of memory."""
    return _fastserve(folder, ["v"], MEMORY)


def unbounded(folder: Path) -> Callable[[], object]:
    """fastserve without one."""
    return _fastserve(folder, ["v"], None)


def three_views(folder: Path) -> Callable[[], object]:
    """fastserve, three views, to an Arrow table that nobody writes."""
    return _fastserve(folder, ["v", "w", "x"], None, write=False)


def _fastserve(
    folder: Path, views: list[str], memory: str | None, *, write: bool = True
) -> Callable[[], object]:
    import pyarrow.parquet as pq  # noqa: PLC0415

    import materializer.training  # noqa: F401, PLC0415  (imports are not measured, of nobody)
    from fastserve import FeatureStore  # noqa: PLC0415
    from fastserve.cli.training_set import write_rows  # noqa: PLC0415

    store = FeatureStore(folder)
    names = [name for name in pq.read_schema(next((folder / "rows").iterdir())).names if name[0] == "f"]

    def run() -> object:
        labels = pq.read_table(folder / "labels.parquet")
        made = store.get_historical_features(
            labels,
            [f"{view}:{name}" for view in views for name in names],
            timestamp_column="t",
            full_feature_names=len(views) > 1,
            memory=memory,
        )
        if not write:
            return made.to_arrow()
        write_rows(made.schema, made.batches(), str(folder / "out.parquet"))
        return None

    return run


def duckdb(folder: Path) -> Callable[[], object]:
    """DuckDB's ASOF JOIN of the files, into a file."""
    import duckdb as db  # noqa: PLC0415

    con = db.connect()
    con.execute("SET preserve_insertion_order = false")
    query = (
        f"COPY (SELECT l.*, r.* EXCLUDE (key, ts) FROM '{folder}/labels.parquet' l ASOF LEFT JOIN "
        f"'{folder}/rows/*.parquet' r ON l.key = r.key AND l.t >= r.ts) TO '{folder}/out.parquet'"
    )
    return lambda: con.execute(query)


def polars(folder: Path) -> Callable[[], object]:
    """polars' join_asof of the files, by its streaming engine, into a file."""
    import polars as pl  # noqa: PLC0415

    left = pl.scan_parquet(folder / "labels.parquet").sort("t")
    right = pl.scan_parquet(folder / "rows" / "*.parquet").sort("ts")
    joined = left.join_asof(right, left_on="t", right_on="ts", by="key", check_sortedness=False)
    return lambda: joined.collect(engine="streaming").write_parquet(folder / "out.parquet")


SYSTEMS: Final = {
    "fastserve": bounded,
    "fastserve, no budget": unbounded,
    "DuckDB": duckdb,
    "polars, streaming": polars,
    "three views": three_views,
}


def main(system: str, folder: str) -> int:
    """See the module's docstring."""
    run = SYSTEMS[system](Path(folder))
    cpu, begun = time.process_time(), time.perf_counter()
    run()
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(json.dumps({"s": took, "cpu": cpu, "peak": resident("VmHWM")}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
