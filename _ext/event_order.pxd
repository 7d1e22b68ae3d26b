# Events of an entity by time, those of one time as they came; header only.

from libc.stdint cimport int64_t
from libc.stdlib cimport qsort

cdef enum:
    FEW = 24            # events that are sorted by insertion


cdef struct Event:
    int64_t at
    int64_t index       # in the columns


cdef inline int earlier(const void* a, const void* b) noexcept nogil:
    cdef const Event* one = <const Event*> a
    cdef const Event* other = <const Event*> b
    if one.at != other.at:
        return (one.at > other.at) - (one.at < other.at)
    return (one.index > other.index) - (one.index < other.index)


cdef inline void by_time(Event* events, int64_t count) noexcept nogil:
    """Their indices rise; they mostly are in order."""
    cdef int64_t i, j
    cdef Event event
    for i in range(1, count):
        if events[i].at >= events[i - 1].at:
            continue
        if count > FEW:
            qsort(events, count, sizeof(Event), &earlier)
            return
        event = events[i]
        j = i
        while j and events[j - 1].at > event.at:
            events[j] = events[j - 1]
            j -= 1
        events[j] = event
