"""Memory does not follow the size of the table: ten times the rows, the same process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.integration.materializer.repo import DAY, SCHEMA, T0, TIME, Repo

ROWS = int(os.environ.get("FASTSERVE_MEMORY_ROWS", "3000000"))
GROUP = 100_000
ROWS_A_DATE = 15_000
BOUND_MB = 150
"""What ten times the rows may cost: buffers that the smaller table does not fill. Measured from 0.3 to 3 to 9 million
rows: 410, 447, 445 MB, a run on a busy machine some 50 more or less. Keeping the whole file read, as Arrow would, cost
218 MB; a row takes about 100 bytes in Arrow, so holding the larger table would cost 300.

What does grow is the keys and times of one date, in which the offline table looks for doubles; so the dates are of one
size here.
"""


def write_rows(path: Path, n_rows: int) -> None:
    """Rows of 50,000 users; every row group reaches over all dates."""
    n_dates = n_rows // ROWS_A_DATE
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for _ in range(n_rows // GROUP):
            times = pa.array(T0 + rng.integers(0, n_dates * DAY, GROUP)).cast(TIME)
            columns = {
                "user": pa.array(rng.integers(0, 50_000, GROUP)).cast(pa.string()),
                "event_timestamp": times,
                "created": times,
                "amount": rng.random(GROUP),
                "visits": rng.integers(0, 9, GROUP),
                "city": pa.array(["Llanfairpwllgwyngyllgogerychwyrndrobwll"] * GROUP),
            }
            writer.write_table(pa.table(columns, schema=SCHEMA))


def peak_mb(repo: Repo, n_rows: int) -> float:
    """Peak resident memory of a run over that many rows."""
    write_rows(repo.path / "data" / "a.parquet", n_rows)
    note = repo.path / "peak"
    code, said, err = repo.cli("--incremental", "--now", "2020-01-01", peak=note)
    assert code == 0, err
    assert said["totals"]["rows_offline_new"] == n_rows
    return int(note.read_text()) / 1e6


def test_ten_times_the_rows_take_hardly_more_memory(repo: Repo, tmp_path: Path) -> None:
    other = repo.copy(tmp_path / "larger")
    small = peak_mb(repo, ROWS // 10)
    large = peak_mb(other, ROWS)
    assert large - small < BOUND_MB, f"{small:.0f} MB, then {large:.0f} MB"
