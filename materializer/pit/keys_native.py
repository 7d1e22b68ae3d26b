"""Composite keys of labels as codes, and the same codes of rows (_ext/asof_keys.pyx)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as is_

from fastserve._native.asof_keys import KeyTable
from materializer.pit.chunks import NONE, Labels, RowChunk
from materializer.pit.factorize import canonical_key

Codes = npt.NDArray[np.int32]


class Keys:
    """One table for each part of a key, and one for each pair of codes so far and part.

    Attributes:
        codes: int32[n], -1 for a key with a null.
        n_codes: all codes are below.
    """

    def __init__(self, labels: Labels) -> None:
        self._key_types = labels.key_types
        self._tables: list[KeyTable] = []
        self._pairs: list[KeyTable] = []
        self.codes: Codes = np.zeros(len(labels.times), np.int32)
        self.n_codes = 1
        for i, column in enumerate(labels.keys):
            part, self.n_codes = _added(self._tables, _plain(column))
            if i:
                part, self.n_codes = _added(self._pairs, _paired(self.codes, part))
            self.codes = part

    def find(self, rows: RowChunk, out: Codes | None = None) -> Codes:
        """Codes of rows: int32[m]; in `out`, where that is given, has room and is of use."""
        codes = np.zeros(0 if self._tables else len(rows.event_ts), np.int32)
        last = len(self._tables) - 1
        for i, (column, table, dtype) in enumerate(
            zip(rows.keys, self._tables, self._key_types, strict=True)
        ):
            part = _found(table, column, dtype, None if last else out)
            pair = None if i < last else out
            codes = self._pairs[i - 1].find(_paired(codes, part), pair) if i else part
        return codes


def _added(tables: list[KeyTable], column: pa.Array) -> tuple[Codes, int]:
    table = KeyTable(not is_.is_int64(column.type))
    codes = table.add(column)
    tables.append(table)
    return codes, table.n_codes


def _found(table: KeyTable, column: pa.Array, dtype: str, out: Codes | None) -> Codes:
    if not is_.is_dictionary(column.type):
        return table.find(_plain(canonical_key(column, dtype)), out)
    known = np.append(table.find(_plain(canonical_key(column.dictionary, dtype))), np.int32(NONE))
    indices = column.indices.fill_null(len(column.dictionary)) if column.null_count else column.indices
    found: Codes = known[indices.to_numpy()]
    return found


def _plain(column: pa.Array) -> pa.Array:
    """Keys as a KeyTable takes them."""
    return column.cast(pa.int64()) if is_.is_boolean(column.type) else column


def _paired(left: Codes, right: Codes) -> pa.Array:
    missing = (left < 0) | (right < 0)
    return pa.array(left.astype(np.int64) << 32 | right, mask=missing)
