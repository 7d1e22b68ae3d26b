"""Training sets from files larger than the memory they are made in, beside DuckDB and polars' streaming engine.

Labels and 90 files of rows, one for each day, in Parquet; a file with labels and features out. Every run is a process
of its own (pit_bounded_run.py), and its peak is all that the process held. No two rows of an entity have one event
time, so that all systems must write the same rows, and they are compared.

    python -m bench.pit_bounded [--rows N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import Figure, alternate
from bench.pit import A_LABEL, AN_ENTITY, SPAN_US, stamps
from bench.pit_bounded_run import MEMORY
from bench.pit_run import digest
from bench.record import Table, Target, save
from bench.scale import scaled

ROWS: Final = scaled(50_000_000, 20_000)
FEW_ROWS: Final = scaled(1_000_000, 10_000)
VIEW_ROWS: Final = (scaled(1_000_000, 9_000), scaled(10_000_000, 18_000))
LABELS: Final = scaled(1_000_000, 1_000)
DAYS: Final = 90
FEATURES: Final = 10
BOUNDED_ROUNDS: Final = scaled(3, 1)
OURS: Final = "fastserve"
COMPARED: Final = (OURS, "fastserve, no budget", "DuckDB", "polars, streaming")
GIB: Final = 1 << 30


def main(arguments: Sequence[str] = ()) -> int:
    """Measure and write bench/results/pit_bounded.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args(arguments).rows
    figures = measured(rows, COMPARED)
    few = measured(min(FEW_ROWS, rows), (OURS,))[OURS]["s"]
    views = {n: measured(n, ("three views",), labels=LABELS)["three views"] for n in VIEW_ROWS}
    fastest = min(COMPARED[2:], key=lambda system: figures[system]["s"].median)
    ratio = figures[fastest]["s"].over(figures[OURS]["s"]).median
    growth = figures[OURS]["s"].median / rows / (few.median / min(FEW_ROWS, rows))
    save(
        "pit_bounded",
        "Training sets in bounded memory",
        [table_of(figures), views_table(views)],
        targets=[
            Target(
                f"training set under {MEMORY}: times the faster other ({fastest})", ratio, at_least=2, reach=3
            ),
            Target(
                f"training set under {MEMORY}: peak, GiB",
                max(figures[OURS]["peak"].rounds) / GIB,
                at_most=1.5,
            ),
            Target(
                f"training set: cost of a row, {rows:,} rows over {min(FEW_ROWS, rows):,}",
                growth,
                at_most=1.3,
                reach=1.1,
            ),
            *(views_target(n, of) for n, of in views.items()),
        ],
        notes=notes_of(rows),
        versions={name: version(name) for name in ("duckdb", "polars")},
    )
    return 0


def views_target(rows: int, figures: dict[str, Figure]) -> Target:
    """Labels a second of three views."""
    return Target(
        f"training set of 3 views of {rows:,} rows, labels/s from Parquet to Arrow",
        LABELS / figures["s"].median,
        at_least=1_000_000,
        reach=2_000_000,
    )


def table_of(figures: dict[str, dict[str, Figure]]) -> Table:
    """Time, processor and memory of each system."""
    table = Table("90 files", {"time": "s", "over_fastserve": "x", "cpu": "s", "peak": "GiB"})
    for system, of in figures.items():
        peak = Figure(tuple(value / GIB for value in of["peak"].rounds))
        table.add(
            system, time=of["s"], over_fastserve=of["s"].over(figures[OURS]["s"]), cpu=of["cpu"], peak=peak
        )
    return table


def views_table(views: Mapping[int, Mapping[str, Figure]]) -> Table:
    """Three views joined at once, by the rows of each."""
    table = Table(
        f"{LABELS:,} labels, 3 views, no budget", {"labels_per_s": "", "time": "s", "cpu": "s", "peak": "GiB"}
    )
    for n, of in views.items():
        rate = Figure(tuple(LABELS / s for s in of["s"].rounds), smaller_is_better=False)
        peak = Figure(tuple(value / GIB for value in of["peak"].rounds))
        table.add(f"{n:,} rows each", labels_per_s=rate, time=of["s"], cpu=of["cpu"], peak=peak)
    return table


def notes_of(rows: int) -> list[str]:
    """What the figures are of."""
    return [
        f"{rows // A_LABEL:,} labels, {rows:,} rows of {FEATURES} float64 in {DAYS} files, {rows // AN_ENTITY:,} "
        "entities; from files to a file; the others without a limit of memory, which they do not keep to.",
        "Peak: all that the process held, libraries included; VmHWM.",
        "Three views of one source: which rows labels have is found once, ten float64 of them are read for each view.",
    ]


def measured(rows: int, systems: Sequence[str], labels: int | None = None) -> dict[str, dict[str, Figure]]:
    """Systems on so many rows; a label for each A_LABEL of them, or so many."""
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as name:
        folder = Path(name)
        write_inputs(rows, folder, labels)
        digests: dict[str, str] = {}
        found = alternate(
            {system: partial(run, system, folder, digests) for system in systems}, rounds=BOUNDED_ROUNDS
        )
    return {system: {what: Figure(tuple(v)) for what, v in by.items()} for system, by in found.items()}


def run(system: str, folder: Path, digests: dict[str, str]) -> Mapping[str, float]:
    """One training set; what the first system wrote all must."""
    out = folder / "out.parquet"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench.pit_bounded_run", system, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{system}: {done.stderr}")
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if out.exists():
        made = pq.read_table(out).sort_by("id")
        found = f"{len(made)} {digest([made[f'f{i}'] for i in range(FEATURES)])}"
        if found != digests.setdefault("answer", found):
            raise SystemExit(f"{system} gives another answer than the first")
    return said


def write_inputs(n: int, folder: Path, labels: int | None = None) -> None:
    """A repo with labels.parquet (id, key, t) and rows/<day>.parquet (key, ts, features), and its views."""
    from fastserve import Entity, FeatureStore, FeatureView, Field, FileSource  # noqa: PLC0415

    draw = np.random.default_rng(11)
    entities, labels, a_day = max(n // AN_ENTITY, 2), labels or n // A_LABEL, n // DAYS
    (folder / "rows").mkdir()
    for day in range(DAYS):
        # Each time once: another multiple of the step.
        times = (draw.permutation(a_day) + day * a_day) * (SPAN_US // n)
        columns = {"key": pa.array(draw.integers(0, entities, a_day)), "ts": stamps(times)}
        columns |= {f"f{i}": pa.array(draw.random(a_day)) for i in range(FEATURES)}
        pq.write_table(pa.table(columns), folder / "rows" / f"{day:02}.parquet")
    spine = {"id": pa.array(np.arange(labels)), "key": pa.array(draw.integers(0, entities, labels))}
    pq.write_table(
        pa.table({**spine, "t": stamps(draw.integers(0, SPAN_US, labels))}), folder / "labels.parquet"
    )
    (folder / "fastserve.toml").write_text('project = "bench"\nonline_store = "memory://bench"\n')
    entity = Entity("key", dtype="int64")
    source = FileSource("rows", "ts", name="rows")
    schema = [Field(f"f{i}", "float64") for i in range(FEATURES)]
    with FeatureStore(folder) as store:
        store.apply(
            [entity, *(FeatureView(v, entities=[entity], schema=schema, source=source) for v in "vwx")]
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
