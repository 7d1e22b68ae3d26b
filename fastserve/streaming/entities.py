"""The entities of some events, each once: what is asked of an entity is asked once, however many events it has.

events     7 9 7 7 4
codes      0 1 0 0 2
columns    7 9 4          one array a join key, by code
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import types as is_

from fastserve.hashes.keys import hashable
from fastserve.hashes.mixing import Words, mixed
from fastserve.offline.latest import key_codes
from fastserve.streaming.event_ids import id_hashes
from fastserve.streaming.events import Ints
from fastserve.streaming.feeds import Feed


@dataclass(frozen=True, slots=True)
class Entities:
    """See the module's docstring.

    Attributes:
        columns: their values, [m] each.
        m: how many entities.
        codes: int64[n], of each event which.
    """

    columns: Sequence[pa.Array]
    m: int
    codes: Ints

    def hashes(self) -> Words:
        """Of each event its entity's, uint64[n]: fixed for ever, see seen.id_words."""
        hashed = np.zeros(self.m, np.uint64)
        for column in self.columns:
            hashed = mixed(hashed ^ _words(column))
        return hashed[self.codes]

    def of_events(self, rows: Ints) -> Entities:
        """The entities of some of the events."""
        codes = self.codes[rows]
        present = np.zeros(self.m, np.bool_)
        present[codes] = True
        if present.all():
            return Entities(self.columns, self.m, codes)
        kept = pa.array(np.flatnonzero(present))
        columns = [column.take(kept) for column in self.columns]
        return Entities(columns, len(kept), (np.cumsum(present) - 1)[codes])


def entities_of(feed: Feed, batch: pa.RecordBatch) -> Entities:
    """Of the feed's events, none of whose join keys is null."""
    columns = [batch[name] for name in feed.join_keys]
    if len(columns) == 1:
        encoded = columns[0].dictionary_encode()
        codes = encoded.indices.to_numpy().astype(np.int64)
        return Entities([encoded.dictionary], len(encoded.dictionary), codes)
    all_codes, _ = key_codes(columns, batch.num_rows)
    _, firsts, codes = np.unique(all_codes, return_index=True, return_inverse=True)
    picked = pa.array(firsts)
    return Entities([c.take(picked) for c in columns], len(firsts), codes.astype(np.int64))


def _words(column: pa.Array) -> Words:
    """Of texts not text_hashes: they deal out well, but some short ones share a hash ("p1" and "p10")."""
    column = hashable(column)
    if is_.is_large_string(column.type) or is_.is_large_binary(column.type):
        return id_hashes(column.cast(pa.large_binary()))
    values: Ints = column.cast(pa.int64()).to_numpy()
    return values.view(np.uint64)
