"""Keys that were written already, by round; fastserve/batch/key_set_py.py is the twin.

    entries   {hash, where in text, size, round} x 2^k     open addressing; round 0: free
    text      1a:7 1a:9 …                                  the keys, end to end
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from buffers cimport Buffer, put, release, reserve
from read_batch cimport Batch, batch_of, key_at, key_size

import numpy as np

cdef struct Entry:
    uint64_t hash
    int64_t at
    uint32_t size
    int32_t round


@cython.final
cdef class KeySet:
    """See the twin."""

    cdef Entry* entries
    cdef Buffer text
    cdef Py_ssize_t capacity, used, limit
    cdef int32_t round

    def __cinit__(self, Py_ssize_t limit):
        self.limit = limit
        self.round = 1
        self.capacity = 1024
        self.entries = <Entry*> calloc(self.capacity, sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError
        reserve(&self.text, 1)      # never NULL, also where the first key is empty

    def __dealloc__(self):
        free(self.entries)
        release(&self.text)

    def __len__(self):
        return self.used

    def next_round(self):
        self.round += 1

    def mark(self, batch):
        cdef Batch* keys = batch_of(batch)
        cdef Py_ssize_t i
        cdef Entry* entry
        earlier = np.zeros(keys.n, np.bool_)
        cdef uint8_t[::1] out = earlier.view(np.uint8)
        for i in range(keys.n):
            entry = self.find(keys.keys[i].hash, key_at(keys, i), key_size(keys, i))
            if entry.round:
                out[i] = entry.round < self.round
            elif self.used < self.limit:
                self.add(entry, keys, i)
        return earlier

    cdef Entry* find(self, uint64_t hash, const char* key, Py_ssize_t size) noexcept:
        """The key's entry, or the free one where it belongs."""
        cdef uint64_t mask = self.capacity - 1, place = hash & mask
        cdef Entry* entry
        while True:
            entry = &self.entries[place]
            if not entry.round:
                return entry
            if entry.hash == hash and entry.size == size:
                if memcmp(self.text.data + entry.at, key, size) == 0:
                    return entry
            place = (place + 1) & mask

    cdef int add(self, Entry* entry, const Batch* keys, Py_ssize_t i) except -1:
        cdef int64_t at = self.text.size
        put(&self.text, key_at(keys, i), key_size(keys, i))
        entry.hash, entry.at = keys.keys[i].hash, at
        entry.size, entry.round = <uint32_t> key_size(keys, i), self.round
        self.used += 1
        if 4 * self.used > 3 * self.capacity:
            self.grow()
        return 0

    cdef int grow(self) except -1:
        cdef Entry* before = self.entries
        cdef Py_ssize_t i, n = self.capacity
        cdef uint64_t mask = 2 * n - 1, place
        cdef Entry* entries = <Entry*> calloc(2 * n, sizeof(Entry))
        if entries == NULL:
            raise MemoryError
        for i in range(n):
            if before[i].round:
                place = before[i].hash & mask
                while entries[place].round:
                    place = (place + 1) & mask
                entries[place] = before[i]
        self.entries, self.capacity = entries, 2 * n
        free(before)
        return 0
