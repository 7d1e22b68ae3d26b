"""The point-in-time join beside DuckDB, polars and pandas, each also in its best hand-tuned form.

One Arrow table of rows and one of labels, in memory; every run is a process of its own (pit_run.py), which has made
its own tables of them before the clock runs. Sorting what has to be sorted counts. No two rows of an entity have one
event time, so that all systems must give the same answer, and each answer is compared.

    python -m bench.pit [--rows N] [CASE …]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.measure import Figure, alternate
from bench.pit_engines import SYSTEMS
from bench.record import Table, Target, save
from bench.scale import ROUNDS, scaled

ROWS: Final = scaled(10_000_000, 20_000)
A_LABEL: Final = 10  # rows
AN_ENTITY: Final = 100  # rows
SPAN_US: Final = 90 * 86_400_000_000
CHUNK: Final = 1 << 20
OURS: Final = "fastserve"
TWIN: Final = "fastserve, numpy twin"


@dataclass(frozen=True, slots=True)
class Case:
    """What is joined, and how much faster than the fastest of the others it should be."""

    label: str
    aim: float
    reach: float
    features: int = 10
    dtype: type = np.float64
    by_time: bool = False
    words: bool = False
    zipf: bool = False


CASES: Final = {
    "random": Case("random order, 10 float64", 5, 7),
    "by_time": Case("rows sorted by time", 3.5, 5.5, by_time=True),
    "words": Case("string keys", 6, 9, words=True),
    "zipf": Case("zipf entities", 2.5, 4, zipf=True),
    "wide": Case("50 float32", 5, 7, features=50, dtype=np.float32),
}


def main(arguments: Sequence[str] = ()) -> int:
    """Measure and write bench/results/pit.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("cases", nargs="*", default=scaled(list(CASES), ["words"]))
    asked = parser.parse_args(arguments)
    tables, targets = [], []
    for name in asked.cases:
        table, aims = measured(CASES[name], asked.rows)
        tables.append(table)
        targets += aims
    save(
        "pit",
        "Point-in-time join",
        tables,
        targets=targets,
        notes=[
            f"{asked.rows // A_LABEL:,} labels, {asked.rows:,} rows, {asked.rows // AN_ENTITY:,} entities; keys int64 "
            "unless said; each system on all cores.",
            "Each system's own tables (polars, pandas, DuckDB's) are made before the clock runs. `taken`: keys, times "
            "and row numbers are joined, then rows taken by number.",
            "Memory: the peak of resident bytes while it joined, over those before, in parts of the inputs' bytes; "
            "the answer is in it.",
        ],
        versions={name: version(name) for name in ("duckdb", "polars", "pandas")},
    )
    return 0


def measured(case: Case, rows: int) -> tuple[Table, list[Target]]:
    """All systems on one case."""
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as folder:
        size = write_inputs(case, rows, Path(folder))
        digests: dict[str, str] = {}
        systems = {system: partial(run, system, folder, digests) for system in SYSTEMS}
        found = alternate(systems, rounds=ROUNDS)
    figures = {
        system: {quantity: Figure(tuple(values)) for quantity, values in by.items()}
        for system, by in found.items()
    }
    others = [system for system in SYSTEMS if system not in (OURS, TWIN)]
    fastest = min(others, key=lambda system: figures[system]["s"].median)
    table = Table(case.label, {"time": "s", "over_fastserve": "x", "cpu": "s", "memory": "x inputs"})
    for system, of in figures.items():
        memory = Figure(tuple(peak / size for peak in of["peak"].rounds))
        over = of["s"].over(figures[OURS]["s"])
        table.add(system, time=of["s"], over_fastserve=over, cpu=of["cpu"], memory=memory)
    ratio = figures[fastest]["s"].over(figures[OURS]["s"]).median
    peak = max(figures[OURS]["peak"].rounds) / size
    what = f"PIT join, {case.label}"
    return table, [
        Target(
            f"{what}: times the fastest other ({fastest})",
            ratio,
            at_least=case.aim,
            reach=case.reach,
        ),
        Target(f"{what}: peak memory over inputs", peak, at_most=0.5, reach=0.3),
    ]


def run(system: str, folder: str, digests: dict[str, str]) -> Mapping[str, float]:
    """One join; the first system's answer is everybody's."""
    command = [sys.executable, "-m", "bench.pit_run", system, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{system}: {done.stderr}")
    said = json.loads(done.stdout.splitlines()[-1])
    first = digests.setdefault("answer", said["digest"])
    if said["digest"] != first:
        raise SystemExit(f"{system} gives another answer than the first")
    return {quantity: said[quantity] for quantity in ("s", "cpu", "peak")}


def write_inputs(case: Case, n: int, folder: Path) -> int:
    """labels.arrow (id, key, t) and rows.arrow (key, ts, features); how many bytes they take in memory."""
    draw = np.random.default_rng(11)
    entities, labels = max(n // AN_ENTITY, 2), n // A_LABEL
    # Times of rows are each another multiple of the step, those of labels lie anywhere.
    times = draw.permutation(n) * (SPAN_US // n)
    if case.by_time:
        times.sort()
    total = 0
    single = case.dtype is np.float32
    features = {
        f"f{i}": draw.random(n, np.float32) if single else draw.random(n) for i in range(case.features)
    }
    tables = {
        "rows": {"key": keys(case, draw, entities, n), "ts": stamps(times), **features},
        "labels": {
            "id": np.arange(labels),
            "key": keys(case, draw, entities, labels),
            "t": stamps(draw.integers(0, SPAN_US, labels)),
        },
    }
    for name, columns in tables.items():
        table = pa.table(columns)
        total += table.nbytes
        with (
            pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file,
            pa.ipc.new_file(file, table.schema) as to,
        ):
            to.write_table(table, CHUNK)
    return total


def keys(case: Case, draw: np.random.Generator, entities: int, n: int) -> pa.Array:
    """Of n rows or labels."""
    if case.zipf:
        weights = np.cumsum(1 / np.arange(1, entities + 1) ** 0.99)
        picked = np.searchsorted(weights / weights[-1], draw.random(n)).clip(0, entities - 1)
    else:
        picked = draw.integers(0, entities, n)
    if not case.words:
        return pa.array(picked)
    return pa.array([f"customer-{i:08}" for i in range(entities)]).take(pa.array(picked))


def stamps(times: npt.NDArray[np.int64]) -> pa.Array:
    """Microseconds as timestamps."""
    return pa.array(times + 1_700_000_000_000_000).cast(pa.timestamp("us", "UTC"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
