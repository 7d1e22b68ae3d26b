"""The ids of events that came lately, so that one which comes again counts once.

    bucket    a span of event time, a 16th of the lateness; ids are kept by it and let go with it
    word      a 64-bit hash of the id and its entity: copies of an event are those of one entity, as in training

An id is kept while an event of its time may still come: up to the lateness behind the newest. Later ones are late
anyhow. With n ids kept, an event is taken for another by mistake with odds of n / 2^64: one in 10^12 at 10 million.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as is_

from fastserve.hashes.mixing import Words, mixed
from fastserve.streaming.event_ids import IdTable, id_hashes
from fastserve.timeutil import MICROS

_BUCKETS: Final = 16

Ints = npt.NDArray[np.int64]


def id_words(entities: Words, ids: pa.Array) -> Words:
    """The word of each event, uint64[n], fixed for ever, for stores keep it; of a null it is anything.

    Args:
        entities: uint64[n], a hash of each event's entity.
        ids: string, binary, or another scalar type.
    """
    if not is_.is_binary(ids.type):
        ids = ids.cast(pa.string())
    found: Words = mixed(mixed(entities) ^ id_hashes(ids.cast(pa.large_binary())))
    return found


def packed_words(words: Words) -> bytes:
    """Words as stores keep them: 8 bytes little-endian each."""
    return words.astype("<u8").tobytes()


def unpacked_words(data: bytes) -> Words:
    """The words again, also of several pieces joined."""
    return np.frombuffer(data, "<u8").astype(np.uint64)


def bucket_width(lateness_us: int) -> int:
    """Microseconds of event time in a bucket."""
    return max(lateness_us // _BUCKETS, MICROS)


class SeenIds:
    """Of one shard.

    Args:
        lateness_us: the source's.
        kept: bucket -> words, as `add` takes them.
    """

    def __init__(self, lateness_us: int, kept: Mapping[int, Words] | None = None) -> None:
        self.width = bucket_width(lateness_us)
        self._lateness_us = lateness_us
        self._table = IdTable()
        for bucket, words in (kept or {}).items():
            self.add(bucket, words)

    def __len__(self) -> int:
        return len(self._table)

    def first(self, watermark_us: int) -> int:
        """The oldest bucket that counts: none of before it does, whether it was let go or not."""
        return (watermark_us - self._lateness_us) // self.width

    def firsts(self, watermarks_us: Ints) -> Ints:
        """`first` of each."""
        return (watermarks_us - self._lateness_us) // self.width

    def first_of_each(
        self, words: Words, buckets: Ints, firsts: Ints, given: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Of events in their order those whose word is new; see IdTable."""
        return self._table.first_of_each(words, buckets, firsts, given.view(np.uint8))

    def add(self, bucket: int, words: Words) -> None:
        """Keep words; of one that is kept already the newest bucket holds."""
        self._table.add(bucket, words)

    def let_go(self, first: int) -> None:
        """Forget what is in buckets before this one."""
        self._table.let_go(first)
