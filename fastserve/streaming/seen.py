"""The ids of events that came lately, so that one which comes again counts once.

    bucket    a span of event time, a 16th of the lateness; ids are kept by it and let go with it
    word      a 64-bit hash of the id and its entity: copies of an event are those of one entity, as in training

An id is kept while an event of its time may still come: up to the lateness behind the newest. Later ones are late
anyhow. With n ids kept, an event is taken for another by mistake with odds of n / 2^64: one in 10^12 at 10 million.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as is_

from fastserve.timeutil import MICROS

_BUCKETS: Final = 16

Ints = npt.NDArray[np.int64]


def id_words(keys: Sequence[bytes], ids: pa.Array) -> list[int | None]:
    """The word of each event, fixed for ever, for stores keep it; None where the id is null.

    Not text_hashes: that deals out well, but of short texts some share a hash ("p1" and "p10").

    Args:
        keys: of the entities, as KeyEncoder writes them: no byte of them is 0.
        ids: string, binary, or another scalar type.
    """
    if not is_.is_binary(ids.type):
        ids = ids.cast(pa.string()).cast(pa.binary())
    return [
        None
        if name is None
        else int.from_bytes(blake2b(key + b"\0" + name, digest_size=8).digest(), "little")
        for key, name in zip(keys, ids.to_pylist(), strict=True)
    ]


def packed_words(words: Sequence[int]) -> bytes:
    """Words as stores keep them: 8 bytes little-endian each."""
    return np.array(words, "<u8").tobytes()


def unpacked_words(data: bytes) -> list[int]:
    """The words again, also of several pieces joined."""
    found: list[int] = np.frombuffer(data, "<u8").tolist()
    return found


def bucket_width(lateness_us: int) -> int:
    """Microseconds of event time in a bucket."""
    return max(lateness_us // _BUCKETS, MICROS)


class SeenIds:
    """Of one shard.

    Args:
        lateness_us: the source's.
        kept: bucket -> words, as `take` gave them.
    """

    def __init__(self, lateness_us: int, kept: Mapping[int, Iterable[int]] | None = None) -> None:
        self.width = bucket_width(lateness_us)
        self._lateness_us = lateness_us
        self._bucket_of: dict[int, int] = {}
        self._words: dict[int, list[int]] = {}
        for bucket, words in (kept or {}).items():
            self.add(bucket, words)

    def __len__(self) -> int:
        return len(self._bucket_of)

    def first(self, watermark_us: int) -> int:
        """The oldest bucket that counts: none of before it does, whether it was let go or not."""
        return (watermark_us - self._lateness_us) // self.width

    def firsts(self, watermarks_us: Ints) -> Ints:
        """`first` of each."""
        return (watermarks_us - self._lateness_us) // self.width

    def has_none_of(self, words: Iterable[int]) -> bool:
        """Whether all of these are new for sure."""
        return self._bucket_of.keys().isdisjoint(words)

    def bucket(self, word: int, otherwise: int) -> int:
        """Where an id is kept."""
        return self._bucket_of.get(word, otherwise)

    def add(self, bucket: int, words: Iterable[int]) -> None:
        """Keep ids; of one that is kept already the newest bucket holds."""
        words = list(words)
        if self.has_none_of(words):
            self._bucket_of.update(dict.fromkeys(words, bucket))
        else:
            for word in words:
                self._bucket_of[word] = max(bucket, self._bucket_of.get(word, bucket))
        self._words.setdefault(bucket, []).extend(words)

    def let_go(self, first: int) -> None:
        """Forget what is in buckets before this one."""
        for bucket in [bucket for bucket in self._words if bucket < first]:
            for word in self._words.pop(bucket):
                if self._bucket_of.get(word) == bucket:
                    del self._bucket_of[word]
