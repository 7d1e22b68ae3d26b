"""Rows by entity, then by time, then by place; materializer/windows/order_native.py has it done by threads.

An Ordering is for n rows with codes, which come in chunks. Codes that follow one another are a part, small
enough to stay in the cache:

    count      of each chunk, how many rows go to each part; so it is known where they go
    scatter    a chunk's rows into their parts, one after the other
    settle     a part: its rows to their codes, and those of a code by time

Each does nothing but its own, so chunks and parts may be given to any threads.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from event_order cimport Event, by_time

import numpy as np

cdef enum:
    PARTS = 512                # at most: so many places to write to have a page each at hand
    PART_BITS = 14             # rows that a part has at least, on average
    ROW_BITS = 32


@cython.final
@cython.boundscheck(False)      # count has looked at the codes, and what is n long is made here
@cython.wraparound(False)
cdef class Ordering:
    """See the module's docstring.

    Args:
        n: rows.
        n_codes: codes are 0 to below that.

    Attributes:
        n_parts: of all codes.
        starts: where each code begins and the last ends, int64[n_codes + 1].
        placed: int64[n, 2], of each row in the order its time and its place.
    """

    cdef readonly Py_ssize_t n, n_codes, n_parts
    cdef readonly object starts, placed
    cdef int64_t[::1] begins
    cdef int64_t[:, ::1] events     # Event[n]; until they are settled, `index` is the code and the row
    cdef int shift

    def __init__(self, Py_ssize_t n, Py_ssize_t n_codes):
        if self.placed is not None:
            raise TypeError("an Ordering is made once")
        if not 0 <= n_codes < 2**31 or not 0 <= n < 2**32:
            raise ValueError(f"{n:,} rows of {n_codes:,} codes: at most 2^32 - 1 of 2^31 - 1 at a time")
        self.n, self.n_codes = n, n_codes
        while n_codes >> self.shift >= min(PARTS, 1 + (n >> PART_BITS)):
            self.shift += 1
        self.n_parts = (n_codes >> self.shift) + 1
        self.starts, self.placed = np.zeros(n_codes + 1, np.int64), np.empty((n, 2), np.int64)
        self.begins, self.events = self.starts, self.placed
        self.begins[n_codes] = n

    def count(self, const int32_t[::1] codes):
        """How many of a chunk's rows go to each part: int64[n_parts]."""
        cdef Py_ssize_t i
        cdef bint right = True
        made = np.zeros(self.n_parts, np.int64)
        cdef int64_t[::1] counts = made
        with nogil:
            for i in range(codes.shape[0]):
                if <uint32_t> codes[i] >= <uint32_t> self.n_codes:
                    right = False
                    break
                counts[codes[i] >> self.shift] += 1
        if not right:
            raise ValueError("codes below n_codes")
        return made

    def scatter(self, const int32_t[::1] codes, const int64_t[:] times, Py_ssize_t first, int64_t[::1] to):
        """A chunk's rows into their parts.

        Args:
            codes, times: of rows first, first + 1 …
            to: where the first of each part goes, [n_parts]; it moves on.
        """
        cdef Py_ssize_t i, m = codes.shape[0]
        cdef uint32_t part
        cdef bint right = True
        if times.shape[0] != m or to.shape[0] != self.n_parts or first < 0 or first + m > self.n:
            raise ValueError(f"{m} codes and {times.shape[0]} times of rows from {first} of {self.n}")
        with nogil:
            for i in range(m):
                part = <uint32_t> codes[i] >> self.shift
                if part >= <uint32_t> self.n_parts or not 0 <= to[part] < self.n:
                    right = False
                    break
                self.events[to[part], 0] = times[i]
                self.events[to[part], 1] = <int64_t> codes[i] << ROW_BITS | (first + i)
                to[part] += 1
        if not right:
            raise ValueError("rows that have no place")

    def settle(self, Py_ssize_t part, int64_t first, int64_t stop):
        """The part of rows first … stop - 1 is put in order."""
        cdef Event* spare
        if not 0 <= part < self.n_parts or not 0 <= first <= stop <= self.n:
            raise ValueError(f"part {part} of rows {first} to {stop}")
        spare = <Event*> malloc((stop - first + 1) * sizeof(Event))
        if spare == NULL:
            raise MemoryError
        with nogil:
            right = self.settle_part(part, first, stop - first, spare)
        free(spare)
        if not right:
            raise ValueError(f"rows {first} to {stop} are not those of part {part}")

    cdef bint settle_part(self, Py_ssize_t part, int64_t first, int64_t n, Event* spare) noexcept nogil:
        cdef int64_t low = part << self.shift, high = min((part + 1) << self.shift, self.n_codes)
        cdef int64_t i, code, count, at = first
        cdef Event* mine = <Event*> &self.events[0, 0] + first if n else NULL
        cdef Event* one
        for code in range(low, high):
            self.begins[code] = 0
        for i in range(n):
            code = mine[i].index >> ROW_BITS
            if code < low or code >= high:
                return False
            self.begins[code] += 1
        for code in range(low, high):
            count, self.begins[code] = self.begins[code], at
            at += count
        for i in range(n):
            code = mine[i].index >> ROW_BITS
            one = &spare[self.begins[code] - first]
            self.begins[code] += 1
            one.at, one.index = mine[i].at, <uint32_t> mine[i].index
        for code in range(high - 1, low, -1):       # each has moved on to where the next begins
            self.begins[code] = self.begins[code - 1]
        if low < high:
            self.begins[low] = first
        for code in range(low, high):
            at = self.begins[code + 1] if code + 1 < high else first + n
            by_time(spare + (self.begins[code] - first), at - self.begins[code])
        if n:
            memcpy(mine, spare, n * sizeof(Event))
        return True
