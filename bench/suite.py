"""All benches, in the order in which `make bench` runs them: a new one is a line here and a part of the page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FEAST: Final = Path(os.environ.get("FASTSERVE_FEAST_VENV", ".venv-feast"), "bin", "feast")


@dataclass(frozen=True, slots=True)
class Bench:
    """One module of this package: `python -m bench.<name>` measures and writes results/<name>.json.

    Attributes:
        minutes: about how long it takes; in the smoke test seconds.
        needs: a file without which it cannot run; then it is left out, and that is said.
    """

    name: str
    measures: str
    minutes: float
    needs: Path | None = None


BENCHES: Final = (
    Bench("kernels", "the native kernels beside their Python twins; bytes of a row and of a cache entry", 1),
    Bench("policies", "hit ratios of the cache beside LRU, SIEVE and W-TinyLFU, on made traces", 3),
    Bench("read_path", "L1 hit and miss x 1, 10, 100, 500 entities x JSON, Arrow, tensor, over F1 and F2", 6),
    Bench("front_end", "one entity over HTTP/2 beside Granian answering ready bytes", 2),
    Bench("vs_feast", "requests a second beside Feast's feature server on the same Redis", 6, needs=FEAST),
    Bench(
        "open_loop",
        "p50 and p99 at 60 % of saturation beside F1 and nghttpd; three load generators, one server",
        7,
    ),
    Bench("overload", "goodput, time to refuse and the way back at 2 and 5 times saturation", 2),
    Bench("stampede", "keys read when 1,000 requests ask for the same cold keys; leaders that go away", 1),
    Bench("zipf", "keys read and latency with a cache of a tenth of a million entities, zipf 0.99", 3),
    Bench("coherence", "from a write to the new value in the cache of each of four workers", 2),
    Bench(
        "bulk_load", "rows a second from Arrow batches into Redis beside `redis-cli --pipe` of ready bytes", 2
    ),
    Bench(
        "materialize",
        "`materializer run` from Parquet to Redis beside `redis-cli --pipe` and `feast materialize`",
        5,
    ),
    Bench("feature_statistics", "what statistics at materialization add to a run", 4),
    Bench("pit", "the point-in-time join beside DuckDB, polars and pandas, plain and tuned by hand", 20),
    Bench(
        "pit_bounded",
        "training sets from files, in 1.5 GiB of memory, beside DuckDB and polars streaming",
        25,
    ),
    Bench("windows", "windows at labels' times beside DuckDB's range windows, 1M labels x 10M events", 8),
    Bench("feast_training", "training sets beside Feast's file store, 1M labels x 1M rows", 5),
    Bench("memory", "bytes of Redis an entity takes, beside Feast's layout", 1),
    Bench(
        "aggregations",
        "events into tile rows beside numpy's ufunc.at; windows of 30 days and of an hour read",
        1,
    ),
    Bench(
        "streams",
        "from a stream's log to rows in Redis beside the kernel; from an event to HTTP; a restart",
        10,
    ),
    Bench("abuse", "when an abusive client is cut off, and what a good one beside it notices", 12),
    Bench("soak", "ten million requests: resident memory, p99 of the last tenth over the first", 8),
)
