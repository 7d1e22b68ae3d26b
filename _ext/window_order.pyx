"""Events and labels by entity, then by time; materializer/windows/ranges_py.py has the twin."""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from event_order cimport Event, by_time

import numpy as np


def order_by(const int64_t[:] codes, const int64_t[:] times, Py_ssize_t n_codes):
    """See the twin, in ranges_py.py."""
    cdef Py_ssize_t i, n = codes.shape[0]
    starts, order, rising = np.zeros(n_codes + 1, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    cdef int64_t[::1] begins = starts
    cdef int64_t[::1] out = order
    cdef int64_t[::1] at = rising
    cdef Event* placed
    if times.shape[0] != n or (n and not (0 <= np.min(codes) and np.max(codes) < n_codes)):
        raise ValueError("codes and times of one length, and codes below n_codes")
    placed = <Event*> malloc((n + 1) * sizeof(Event))
    if placed == NULL:
        raise MemoryError
    try:
        with nogil:
            place_all(codes, times, begins, n_codes, placed)
            for i in range(n_codes):
                by_time(placed + begins[i], begins[i + 1] - begins[i])
            take_all(placed, out, at)
    finally:
        free(placed)
    return starts, order, rising


@cython.boundscheck(False)      # codes are in range, which order_by has looked at
@cython.wraparound(False)
cdef void place_all(
    const int64_t[:] codes, const int64_t[:] times, int64_t[::1] starts, Py_ssize_t n_codes, Event* placed
) noexcept nogil:
    """A counting sort by code; starts are filled in."""
    cdef Py_ssize_t i, n = codes.shape[0]
    cdef int64_t at = 0, count
    cdef Event* one
    for i in range(n):
        starts[codes[i]] += 1
    for i in range(n_codes):
        count = starts[i]
        starts[i] = at
        at += count
    for i in range(n):
        one = &placed[starts[codes[i]]]
        starts[codes[i]] += 1
        one.at, one.index = times[i], i
    for i in range(n_codes, 0, -1):     # each has moved on to where the next begins
        starts[i] = starts[i - 1]
    starts[0] = 0


@cython.boundscheck(False)      # all are n long
@cython.wraparound(False)
cdef void take_all(const Event* placed, int64_t[::1] order, int64_t[::1] times) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(order.shape[0]):
        order[i], times[i] = placed[i].index, placed[i].at
