"""Memory follows neither the history nor the store: ten times the keys, all of them wrong, the same process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.integration.materializer.repo import DAY, SCHEMA, T0, TIME, Repo
from tests.servers import start_redis

KEYS = int(os.environ.get("FASTSERVE_MEMORY_KEYS", "200000"))
KEYS_A_DATE = 5_000
BOUND_MB = 110
"""What ten times the keys may cost: buffers that fewer do not fill, and the keys of newer dates, up to 500,000 of them.
Measured: 249 MB, then 298 MB. Keys and rows of the larger store, held as objects, would cost 85 MB each time, and there
are three lists of them.
"""


def write_rows(path: Path, n_keys: int) -> None:
    """One row of each user, on dates of one size: a file of the table is of one date, and read by its row groups."""
    times = pa.array(T0 + np.arange(n_keys) // KEYS_A_DATE * DAY).cast(TIME)
    columns = {
        "user": pa.array(np.arange(n_keys)).cast(pa.string()),
        "event_timestamp": times,
        "created": times,
        "amount": np.zeros(n_keys),
        "visits": np.zeros(n_keys, np.int64),
        "city": pa.array(["Llanfairpwllgwyngyllgogerychwyrndrobwll" * 4] * n_keys),
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), path)


def peak_mb(repo: Repo, n_keys: int) -> float:
    """Peak resident memory of putting all rows online."""
    write_rows(repo.path / "data" / "a.parquet", n_keys)
    # In a process of its own: what this one takes would count as what its children took.
    assert repo.cli("--incremental", "--target", "offline", "--now", "2020-01-01")[0] == 0
    note = repo.path / "peak"
    asked = ("--all", "--repair", "--json", "--now", "2020-01-01")
    code, said, _ = repo.cli(*asked, command="reconcile", peak=note)
    [view] = said["views"]
    assert (code, view["repaired"]) == (0, {"missing": n_keys})
    return int(note.read_text()) / 1e6


def test_ten_times_the_keys_take_hardly_more_memory(repo: Repo, tmp_path: Path) -> None:
    server = start_redis(tmp_path)
    try:
        small = peak_mb(repo.copy(tmp_path / "small", server.url + "/1"), KEYS // 10)
        large = peak_mb(repo.copy(tmp_path / "large", server.url + "/2"), KEYS)
    finally:
        server.stop()
    print(f"{small:.0f} MB, then {large:.0f} MB")
    assert large - small < BOUND_MB, f"{small:.0f} MB, then {large:.0f} MB"
