"""Words of event ids, and which of them came already; fastserve/streaming/event_ids_py.py is the twin.

    places   {word, bucket} x 2^k     open addressing, at most three quarters full; one whose bucket was let
                                      go may be taken, but does not end a search
"""

cimport cython
from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc

from tile_values cimport fs_xxh64

import os

import numpy as np
import pyarrow as pa

cdef extern from * nogil:
    void __builtin_prefetch(const void* at)

cdef enum:
    LEAST = 1024        # places
    AHEAD = 16          # words whose places are asked for before they are needed

cdef int64_t FREE = INT64_MIN
cdef uint64_t SECRET = int.from_bytes(os.urandom(8), "little") | 1     # nobody can fill one part of a table


cdef struct Place:
    uint64_t word
    int64_t bucket

cdef struct Table:
    Place* places
    int shift               # there are 2^(64 - shift)
    int64_t used


def id_hashes(array):
    """See the twin."""
    cdef Py_ssize_t i, n = len(array)
    if array.type != pa.large_binary():
        raise TypeError(f"ids are {array.type}, not large_binary")
    found = np.empty(n, np.uint64)
    if not n:
        return found
    _, offsets, data = array.buffers()
    cdef const int64_t[::1] ends = np.frombuffer(offsets, np.int64)[array.offset:array.offset + n + 1]
    cdef const uint8_t[::1] held = np.frombuffer(data if data is not None and data.size else b"\0", np.uint8)
    cdef const char* start = <const char*> &held[0]
    cdef uint64_t[::1] out = found
    for i in range(n):
        out[i] = fs_xxh64(start + ends[i], ends[i + 1] - ends[i])
    return found


@cython.final
cdef class IdTable:
    """See the twin."""

    cdef Table table
    cdef int64_t first

    def __cinit__(self):
        self.first = FREE + 1
        start(&self.table, 0)

    def __dealloc__(self):
        free(self.table.places)

    def __len__(self):
        cdef int64_t i, found = 0
        for i in range(size_of(&self.table)):
            found += self.table.places[i].bucket >= self.first
        return found

    @cython.boundscheck(False)      # all of one length: checked
    @cython.wraparound(False)
    def first_of_each(
        self, const uint64_t[::1] words, const int64_t[::1] buckets, const int64_t[::1] firsts,
        const uint8_t[::1] given
    ):
        cdef Py_ssize_t i, n = words.shape[0]
        cdef Place* place
        cdef Table ours
        if not (buckets.shape[0] == n and firsts.shape[0] == n and given.shape[0] == n):
            raise ValueError("words, buckets, firsts and given are of different length")
        found = np.empty(n, np.bool_)
        cdef uint8_t[::1] out = found.view(np.uint8)
        start(&ours, n)
        try:
            for i in range(n):
                if i + AHEAD < n:
                    __builtin_prefetch(&self.table.places[place_of(&self.table, words[i + AHEAD])])
                out[i] = True
                if not given[i]:
                    continue
                place = find(&self.table, words[i])
                if place.bucket >= max(firsts[i], self.first):
                    out[i] = False
                    continue
                place = find(&ours, words[i])
                if place.bucket >= firsts[i]:
                    out[i] = False
                    continue
                place.word, place.bucket = words[i], buckets[i]
        finally:
            free(ours.places)
        return found

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def add(self, int64_t bucket, const uint64_t[::1] words):
        cdef Py_ssize_t i, n = words.shape[0]
        if bucket < self.first:
            return
        if 4 * (self.table.used + n) > 3 * size_of(&self.table):
            self.rebuild(n)
        for i in range(n):
            if i + AHEAD < n:
                __builtin_prefetch(&self.table.places[place_of(&self.table, words[i + AHEAD])])
            keep(&self.table, words[i], bucket, self.first)

    def let_go(self, int64_t first):
        self.first = max(self.first, first)

    cdef int rebuild(self, int64_t more) except -1:
        """Without those that were let go, and with room for more."""
        cdef Table before = self.table
        cdef int64_t i
        start(&self.table, len(self) + more)
        for i in range(size_of(&before)):
            if before.places[i].bucket >= self.first:
                keep(&self.table, before.places[i].word, before.places[i].bucket, self.first)
        free(before.places)
        return 0


cdef inline int64_t size_of(const Table* table) noexcept nogil:
    return <int64_t> 1 << (64 - table.shift)


cdef int start(Table* table, int64_t n) except -1:
    """An empty one, half full with n; what it had is the caller's, and stays where memory is short."""
    cdef int64_t i, size = LEAST
    cdef int shift = 54
    cdef Place* places
    while size < 2 * n:
        size *= 2
        shift -= 1
    places = <Place*> malloc(size * sizeof(Place))
    if places == NULL:
        raise MemoryError
    for i in range(size):
        places[i].bucket = FREE
    table.places, table.shift, table.used = places, shift, 0
    return 0


cdef inline uint64_t place_of(const Table* table, uint64_t word) noexcept nogil:
    return (word * SECRET) >> table.shift


cdef inline Place* find(const Table* table, uint64_t word) noexcept nogil:
    """The word's place, or the free one where a search for it ends."""
    cdef uint64_t mask = size_of(table) - 1, at = place_of(table, word)
    while table.places[at].bucket != FREE and table.places[at].word != word:
        at = (at + 1) & mask
    return &table.places[at]


cdef inline void keep(Table* table, uint64_t word, int64_t bucket, int64_t first) noexcept nogil:
    """The newest bucket of a word holds. There is room."""
    cdef Place* place = find(table, word)
    cdef uint64_t mask, at
    if place.bucket != FREE:
        place.bucket = max(place.bucket, bucket)
        return
    mask, at = size_of(table) - 1, place_of(table, word)
    while table.places[at].bucket >= first:     # the first that nobody needs: before `place`, or that one
        at = (at + 1) & mask
    table.used += table.places[at].bucket == FREE
    table.places[at].word, table.places[at].bucket = word, bucket
