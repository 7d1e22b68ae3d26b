# Labels of many entities, each entity's in order of time, and how a time is found among them; header only.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from * nogil:
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    FEW = 15                   # labels that are searched in four steps; an entity with more has a directory
    RUN = 16                   # labels sorted by insertion


cdef struct Directory:         # of an entity with many labels
    int64_t first              # its first label's time
    int32_t shift              # cell k: first + (k << shift) and later
    uint32_t at                # cells[at + k]: the first label of cell k


cdef struct Moment:
    int64_t time
    uint32_t label


cdef struct Order:             # labels by entity and time, and the rule
    uint32_t* starts           # [n_codes + 1]: the first label of a code, among the placed
    int64_t* times             # [placed], and FEW more that are read but mean nothing
    uint32_t* labels           # [placed]: which label it is
    uint32_t* directory_of     # [n_codes]: its number, where there are more than FEW labels
    Directory* directories
    uint32_t* cells
    uint64_t ttl
    bint bounded, known
    int64_t cutoff


cdef inline uint32_t first_not_before(
    const int64_t* times, uint32_t low, uint32_t high, int64_t time
) noexcept nogil:
    """The first of times[low … high] that is not before `time`, or high. Always the same steps among few."""
    cdef uint32_t half
    while high - low > FEW:
        half = (high - low) >> 1
        if times[low + half] < time:
            low += half + 1
        else:
            high = low + half
    low = step(times, low, high, time, 8)
    low = step(times, low, high, time, 4)
    low = step(times, low, high, time, 2)
    return step(times, low, high, time, 1)


cdef inline uint32_t step(
    const int64_t* times, uint32_t low, uint32_t high, int64_t time, uint32_t size
) noexcept nogil:
    """`size` further, unless that is beyond high, or a time that is not before `time`."""
    return low + size * ((high - low >= size) & (times[low + size - 1] < time))


cdef inline void merge(
    const Moment* a, Py_ssize_t n_a, const Moment* b, Py_ssize_t n_b, Moment* out
) noexcept nogil:
    cdef Py_ssize_t i = 0, j = 0
    cdef bint second
    if n_a and n_b and a[n_a - 1].time > b[0].time:     # else they are in order already
        while i < n_a and j < n_b:
            second = b[j].time < a[i].time
            out[i + j] = b[j] if second else a[i]
            if second:
                j += 1
            else:
                i += 1
    memcpy(out + i + j, a + i, (n_a - i) * sizeof(Moment))
    memcpy(out + n_a + j, b + j, (n_b - j) * sizeof(Moment))


cdef inline void sort_moments(Moment* moments, Moment* spare, Py_ssize_t n) noexcept nogil:
    """By time. Runs by insertion, then merged two by two."""
    cdef Py_ssize_t first = 0, middle, stop, i, j, run = RUN
    cdef Moment moment
    cdef Moment* source = moments
    cdef Moment* target = spare
    while first < n:
        stop = min(first + RUN, n)
        for i in range(first + 1, stop):
            moment = moments[i]
            j = i
            while j > first and moments[j - 1].time > moment.time:
                moments[j] = moments[j - 1]
                j -= 1
            moments[j] = moment
        first = stop
    while run < n:
        first = 0
        while first < n:
            middle, stop = min(first + run, n), min(first + 2 * run, n)
            merge(source + first, middle - first, source + middle, stop - middle, target + first)
            first = stop
        source, target = target, source
        run *= 2
    if source != moments:
        memcpy(moments, source, n * sizeof(Moment))


cdef inline uint32_t cells_of(uint32_t count) noexcept nogil:
    """A power of two, count or more."""
    cdef uint32_t cells = 1
    while cells < count:
        cells *= 2
    return cells


cdef inline void sort_labels(Order* o, Py_ssize_t code, Moment* moments, Moment* spare) noexcept nogil:
    cdef uint32_t start = o.starts[code], end = o.starts[code + 1], i
    for i in range(start + 1, end):
        if o.times[i] < o.times[i - 1]:
            break
    else:
        return
    for i in range(start, end):
        moments[i - start] = Moment(o.times[i], o.labels[i])
    sort_moments(moments, spare, end - start)
    for i in range(start, end):
        o.times[i], o.labels[i] = moments[i - start].time, moments[i - start].label


cdef inline void fill_directory(Order* o, Py_ssize_t code) noexcept nogil:
    cdef uint32_t start = o.starts[code], end = o.starts[code + 1], i
    cdef uint32_t cells = cells_of(end - start), k = 0
    cdef Directory* of = &o.directories[o.directory_of[code]]
    cdef uint64_t span
    of.first = o.times[start]
    span = <uint64_t> o.times[end - 1] - <uint64_t> of.first
    of.shift = 0
    while span >> of.shift >= cells:
        of.shift += 1
    for i in range(start, end):
        while k <= (<uint64_t> o.times[i] - <uint64_t> of.first) >> of.shift:
            o.cells[of.at + k] = i
            k += 1
    while k <= cells:
        o.cells[of.at + k] = end
        k += 1


cdef inline void narrow(
    const Order* o, uint32_t code, int64_t time, uint32_t* low, uint32_t* high
) noexcept nogil:
    """From all labels of an entity to those of one cell of its directory."""
    cdef const Directory* of = &o.directories[o.directory_of[code]]
    cdef const uint32_t* cell
    if time <= of.first:
        high[0] = low[0]
    elif time > o.times[high[0] - 1]:
        low[0] = high[0]
    else:
        cell = &o.cells[of.at + ((<uint64_t> time - <uint64_t> of.first) >> of.shift)]
        low[0], high[0] = cell[0], cell[1]
        __builtin_prefetch(&o.times[low[0]], 0, 3)
