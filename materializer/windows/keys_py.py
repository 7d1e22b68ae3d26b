"""Composite keys of labels as codes, in numpy; the twin of materializer.pit.asof_native.Keys."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from materializer.pit.chunks import Labels, RowChunk
from materializer.pit.factorize import canonical_key

Codes = npt.NDArray[np.signedinteger]


class Keys:
    """Codes of the labels' keys.

    Attributes:
        codes: int[n], -1 for a key with a null.
        n_codes: all codes are below.
    """

    def __init__(self, labels: Labels) -> None:
        self._key_types = labels.key_types
        self._known = [pc.unique(column.drop_null()) for column in labels.keys]
        self._combined: list[
            npt.NDArray[np.int64]
        ] = []  # after each column, the codes so far that labels have
        self.n_codes = 1
        self.codes: Codes = np.zeros(len(labels.times), np.int64)
        for i, column in enumerate(labels.keys):
            made = self._with(self.codes, i, column)
            self._combined.append(np.unique(made[made >= 0]))
            self.codes = self._dense(i, made)
            self.n_codes = max(len(self._combined[i]), 1)

    def find(self, rows: RowChunk) -> Codes:
        """Codes of rows: int[m], -1 where no label has the key."""
        codes: Codes = np.zeros(len(rows.event_ts), np.int64)
        for i, (column, key_type) in enumerate(zip(rows.keys, self._key_types, strict=True)):
            codes = self._dense(i, self._with(codes, i, canonical_key(column, key_type)))
        return codes

    def _with(self, codes: Codes, i: int, column: pa.Array) -> npt.NDArray[np.int64]:
        part = pc.fill_null(pc.index_in(column, self._known[i]).cast(pa.int64()), -1)
        part = part.to_numpy(zero_copy_only=False)
        return np.where((codes < 0) | (part < 0), -1, codes * max(len(self._known[i]), 1) + part)

    def _dense(self, i: int, made: npt.NDArray[np.int64]) -> Codes:
        known = self._combined[i]
        if not len(known):
            return np.full(len(made), -1, np.int64)
        at = np.minimum(np.searchsorted(known, made), len(known) - 1)
        return np.where(known[at] == made, at, -1)
