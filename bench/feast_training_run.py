"""One training set by fastserve, in a process of its own: `python -m bench.feast_training_run SYSTEM FOLDER`.

Reads FOLDER/labels.parquet and the view's rows, writes FOLDER/out.parquet once the clock has stopped. Prints JSON:
seconds, those of CPU, the peak of the process's resident bytes. Asked by bench/feast_training.py.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from bench.peak import resident
from fastserve import FeatureStore


def main(system: str, folder: str) -> int:
    """See the module's docstring."""
    path, frame = Path(folder), system == "frame"
    with FeatureStore(path) as store:
        read, features = pd.read_parquet if frame else pq.read_table, [f"v:f{i}" for i in range(10)]
        few = read(path / "labels.parquet")[:9]
        store.get_historical_features(few, features).to_arrow().to_pandas()  # imports
        cpu, begun = time.process_time(), time.perf_counter()
        made = store.get_historical_features(read(path / "labels.parquet"), features)
        answer = made.to_df() if frame else made.to_arrow()
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
        peak = resident("VmHWM")
    if frame:
        answer.to_parquet(path / "out.parquet")
    else:
        pq.write_table(answer, path / "out.parquet")
    print(json.dumps({"s": took, "cpu": cpu, "peak": peak}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
