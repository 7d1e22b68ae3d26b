"""Words of event ids, and which of them came already: the readable twin of _ext/event_ids.pyx."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.aggregations.sketches_py import xxh64

_FIRST: Final = -(2**63) + 1

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


def id_hashes(array: pa.Array) -> Words:
    """XXH64 of each text, uint64[n]; of a null that of the empty one.

    Args:
        array: large_binary.

    Raises:
        TypeError: it is another type.
    """
    if array.type != pa.large_binary():
        raise TypeError(f"ids are {array.type}, not large_binary")
    return np.fromiter((xxh64(one or b"") for one in array.to_pylist()), np.uint64, len(array))


class IdTable:
    """Word -> the newest bucket that it came with."""

    def __init__(self) -> None:
        self._bucket_of: dict[int, int] = {}
        self._first = _FIRST

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._bucket_of)

    def first_of_each(
        self, words: Words, buckets: Ints, firsts: Ints, given: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.bool_]:
        """Of events in their order those whose word is new: bool[n]. Nothing is added.

        Args:
            words: uint64[n].
            buckets: int64[n], where each would be kept.
            firsts: int64[n], the oldest bucket that counts for each.
            given: uint8[n], 0 where an event has no id: it is always new.

        Raises:
            ValueError: they are of different length.
        """
        if not len(words) == len(buckets) == len(firsts) == len(given):
            raise ValueError("words, buckets, firsts and given are of different length")
        ours: dict[int, int] = {}
        found = np.ones(len(words), np.bool_)
        rows = zip(words.tolist(), buckets.tolist(), firsts.tolist(), given.tolist(), strict=True)
        for i, (word, bucket, first, one) in enumerate(rows):
            if not one:
                continue
            if max(ours.get(word, first - 1), self._bucket_of.get(word, first - 1)) >= first:
                found[i] = False
            else:
                ours[word] = bucket
        return found

    def add(self, bucket: int, words: Words) -> None:
        """Keep words, each once; of one that is kept already the newest bucket holds."""
        if bucket < self._first:
            return
        for word in words.tolist():
            self._bucket_of[word] = max(bucket, self._bucket_of.get(word, bucket))

    def let_go(self, first: int) -> None:
        """Forget what is in buckets before this one."""
        if first > self._first:
            self._first = first
            self._bucket_of = {word: bucket for word, bucket in self._bucket_of.items() if bucket >= first}
