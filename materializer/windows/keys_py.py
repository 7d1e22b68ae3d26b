"""Composite keys of labels as codes, in numpy; the twin of materializer/pit/keys_native.py."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from materializer.pit.chunks import Labels, RowChunk
from materializer.pit.factorize import Codes, canonical_key, combined, or_none, renumbered


class Keys:
    """Codes of the labels' keys.

    Attributes:
        codes: int[n], -1 for a key with a null.
        n_codes: all codes are below.
    """

    def __init__(self, labels: Labels) -> None:
        self._key_types = labels.key_types
        self._known = [pc.unique(column.drop_null()) for column in labels.keys]
        self._pairs: list[Codes] = []  # after each column, the codes so far that labels have
        self.n_codes = 1
        self.codes: Codes = np.zeros(len(labels.times), np.int64)
        for i, column in enumerate(labels.keys):
            made = self._with(self.codes, i, column)
            self._pairs.append(np.unique(made[made >= 0]))
            self.codes = renumbered(made, self._pairs[i])
            self.n_codes = max(len(self._pairs[i]), 1)

    def find(self, rows: RowChunk) -> Codes:
        """Codes of rows: int[m], -1 where no label has the key."""
        codes: Codes = np.zeros(len(rows.event_ts), np.int64)
        for i, (column, key_type) in enumerate(zip(rows.keys, self._key_types, strict=True)):
            codes = renumbered(self._with(codes, i, canonical_key(column, key_type)), self._pairs[i])
        return codes

    def _with(self, codes: Codes, i: int, column: pa.Array) -> Codes:
        part = or_none(pc.index_in(column, self._known[i]))
        return combined(codes, part, max(len(self._known[i]), 1))
