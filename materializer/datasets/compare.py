"""Which columns and rows of two makings differ, bit by bit: NaN is NaN, -0.0 is not 0.0, null is not 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final

import pyarrow as pa

from materializer.datasets.content import column_hashes, message, parts
from materializer.datasets.report import Finding

_SHOWN: Final = 5


def differing_columns(
    made: pa.Table, recorded: Mapping[str, str], stored: pa.Table | None
) -> Iterator[Finding]:
    """A finding per column of which the recorded, the stored and the re-made values are not all the same.

    Args:
        made: made again.
        recorded: the manifest's column hashes.
        stored: what data.parquet holds now; None when it cannot be read.
    """
    again = column_hashes(made)
    now = {} if stored is None else column_hashes(stored)
    for name in dict.fromkeys([*recorded, *again, *now]):
        if name not in again or name not in recorded:
            yield Finding("column", name, "is no column of the data set")
        elif again[name] != recorded[name]:
            yield Finding("column", name, f"made again it differs{_rows(made, stored, name)}")
        elif stored is not None and now.get(name) != recorded[name]:
            yield Finding("column", name, f"data.parquet holds other values{_rows(made, stored, name)}")


def _rows(made: pa.Table, stored: pa.Table | None, name: str) -> str:
    """`` in 3 rows: 4, 7, 9``; nothing where the stored values are not there to compare with."""
    if stored is None or name not in stored.column_names:
        return ""
    if made[name].type != stored[name].type:
        return f" in type: {made[name].type}, stored {stored[name].type}"
    shown, count, at = [], 0, 0
    for a, b in zip_longest(parts(made.select([name])), parts(stored.select([name]))):
        if a is None or b is None:
            return f" in length: {len(made):,} rows, stored {len(stored):,}"
        if message(a.column(0), name) != message(b.column(0), name):
            for i, (x, y) in enumerate(zip_longest(_plain(a), _plain(b), fillvalue="")):
                if x != y:
                    count += 1
                    shown += [at + i] if count <= _SHOWN else []
        at += a.num_rows
    if not count:
        return " in bits that do not show"
    rows = ", ".join(map(str, shown)) + (", …" if count > _SHOWN else "")
    return f" in {count:,} row{'' if count == 1 else 's'}: {rows}"


def _plain(batch: pa.RecordBatch) -> Iterator[str]:
    """Values as text that tells all of them apart, but for the payload of a NaN."""
    column: Any = batch.column(0)
    if pa.types.is_temporal(column.type) and not pa.types.is_interval(column.type):
        column = column.cast(pa.int64() if column.type.bit_width == 64 else pa.int32())
    return map(repr, column.to_pylist())
