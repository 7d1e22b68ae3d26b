"""One join of one system, in a process of its own: `python -m bench.pit_run SYSTEM FOLDER`, asked by bench/pit.py.

Reads the inputs, which are mapped and touched, makes the system's own tables of them, joins a few rows to warm up, and
then all of them once. Prints JSON: seconds, those of CPU, the peak of resident bytes over what there was before, and a
digest of the answer.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.peak import resident
from bench.pit_engines import SYSTEMS, Columns


def main(system: str, folder: str) -> int:
    """See the module's docstring."""
    labels, rows = (mapped(Path(folder, f"{name}.arrow")) for name in ("labels", "rows"))
    names = rows.column_names[2:]
    warm, _ = SYSTEMS[system](labels.slice(0, 1_000), rows.slice(0, 10_000), names)
    warm()
    run, answer = SYSTEMS[system](labels, rows, names)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, cpu, begun = resident("VmRSS"), time.process_time(), time.perf_counter()
    made = run()
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    peak = resident("VmHWM") - before
    print(json.dumps({"s": took, "cpu": cpu, "peak": peak, "digest": digest(answer(made))}))
    return 0


def mapped(path: Path) -> pa.Table:
    """A table in the file's own memory, all of it read once."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    for column in table.columns:
        pc.count_distinct(column.slice(0, 1))
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                if buffer is not None:
                    np.frombuffer(buffer, np.uint8)[::4096].sum()
    return table


def digest(columns: Columns) -> str:
    """Of all values in order; what is missing is NaN, which no value is."""
    total = hashlib.sha256()
    for column in columns:
        width = np.float64 if pa.types.is_float64(column.type) else np.float32
        filled = pc.fill_null(column, pa.scalar(float("nan"), column.type)).to_numpy(zero_copy_only=False)
        values = np.array(filled, width)
        values[np.isnan(values)] = np.nan  # pandas has NaNs of its own
        total.update(values.tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
