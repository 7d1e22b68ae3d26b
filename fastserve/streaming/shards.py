"""Which shard an event is in: for ever the one of its entity, by a hash of its join keys."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fastserve.hashes.keys import hashable, key_hashes
from fastserve.streaming.events import Ints
from fastserve.streaming.feeds import Feed


def shards_of(feed: Feed, batch: pa.RecordBatch, n: int) -> Ints:
    """int64[rows], 0 … n - 1. Equal keys are in one shard, in every process and release."""
    keys = [hashable(batch[name]) for name in feed.join_keys]
    found: Ints = (key_hashes(keys, batch.num_rows) % np.uint64(n)).astype(np.int64)
    return found
