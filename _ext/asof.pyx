"""For each label the row in force at its time; materializer/pit/asof_py.py is the twin.

Labels are in order, rows come in any. All labels of an entity stand together, by time; a row is of use to the
first of them that is not before it, and to every later one until a better row. So each label has a Best, the
best row it is the first for, and a running maximum over an entity's labels gives each its row:

    labels   entity 0: t10 t20 t30   entity 1: t15 t25
    starts          0                       3             5
    Best            -  e12 e21              e3 -            of rows 0:e12 0:e21 0:e11 1:e3 1:e99
    winner          -  e12 e21              e3 e3

Rows are read as they come, and neither sorted nor kept: memory is the labels' alone. Which row is better is a
total order (event time, created time, place), so they may come in any order. With "known at the label's time"
a row counts from the later of its two times on, and all else is the same.

What a row needs lies at places that one array names for the next. A Part is some entities and their labels,
few enough to stay in a core's cache while all rows go by; it passes over the rows of others, which costs next
to nothing. Parts share nothing that is written, so each thread takes one after the other. A block of rows
takes each step together, and fetches what the next one needs. Among many labels of an entity a row finds its
place by a directory: the labels' times from first to last in equal cells, about one to a label.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

cdef extern from * nogil:
    """
    #include <sys/mman.h>
    """
    int MADV_HUGEPAGE
    int madvise(void* address, size_t size, int advice)
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    BLOCK = 64                 # rows that take a step together
    FEW = 15                   # labels that are searched in four steps; an entity with more has a directory
    RUN = 16                   # labels sorted by insertion
    HUGE_PAGE = 1 << 21

cdef uint64_t SIGN = <uint64_t> 1 << 63


cdef struct Best:              # all 0: none yet
    uint64_t event             # times with the sign flipped: they compare as unsigned, and 0 is the first
    uint64_t created
    uint64_t place             # 1 + the row's place


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


cdef inline bint better(const Best* a, const Best* b) noexcept nogil:
    if a.event != b.event:
        return a.event > b.event
    if a.created != b.created:
        return a.created > b.created
    return a.place > b.place


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


cdef void* room(size_t size) except NULL:
    """Zeroed, and of huge pages where there are: it is touched all over."""
    cdef char* made = <char*> calloc(size + 1, 1)
    cdef uintptr_t start, end
    if made == NULL:
        raise MemoryError
    start = (<uintptr_t> made + HUGE_PAGE - 1) & ~<uintptr_t> (HUGE_PAGE - 1)
    end = (<uintptr_t> made + size) & ~<uintptr_t> (HUGE_PAGE - 1)
    if start < end:
        madvise(<void*> start, end - start, MADV_HUGEPAGE)
    return made


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


cdef void sort_moments(Moment* moments, Moment* spare, Py_ssize_t n) noexcept nogil:
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


cdef void sort_labels(Order* o, Py_ssize_t code, Moment* moments, Moment* spare) noexcept nogil:
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


cdef void fill_directory(Order* o, Py_ssize_t code) noexcept nogil:
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


cdef inline int64_t counts_from(
    const Order* o, const int64_t* events, const int64_t* created, uint32_t row
) noexcept nogil:
    if o.known and created[row] > events[row]:
        return created[row]
    return events[row]


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


cdef Py_ssize_t scan_block(
    const Order* of, uint32_t first, uint32_t stop, Best* own,
    const int32_t* codes, const int64_t* events, const int64_t* created,
    Py_ssize_t at, Py_ssize_t m, uint64_t place
) noexcept nogil:
    """Rows from `at` on, until a block of them is of this part. Each step has what the one before left."""
    cdef uint32_t[BLOCK] rows
    cdef uint32_t[BLOCK] low
    cdef uint32_t[BLOCK] high
    cdef const uint32_t* starts = of.starts
    cdef Best* bests = own - starts[first]
    cdef uint32_t width = stop - first, row, code, slot
    cdef Py_ssize_t left = 0, k, n
    cdef int64_t time
    cdef Best mine
    while at < m and left < BLOCK:
        rows[left] = <uint32_t> at
        left += <uint32_t> codes[at] - first < width
        at += 1
    for k in range(left):
        __builtin_prefetch(&starts[codes[rows[k]]], 0, 3)
    n, left = left, 0
    for k in range(n):
        row = rows[k]
        code = <uint32_t> codes[row]
        rows[left], low[left], high[left] = row, starts[code], starts[code + 1]
        if high[left] - low[left] > FEW:
            narrow(of, code, counts_from(of, events, created, row), &low[left], &high[left])
        else:
            __builtin_prefetch(&of.times[low[left]], 0, 3)
            __builtin_prefetch(&of.times[high[left] - 1], 0, 3)
        left += created[row] <= of.cutoff
    n, left = left, 0
    for k in range(n):                              # the first label each is of use to
        row = rows[k]
        time = counts_from(of, events, created, row)
        slot = first_not_before(of.times, low[k], high[k], time)
        rows[left], low[left] = row, slot
        __builtin_prefetch(&bests[slot], 1, 3)
        left += slot < starts[<uint32_t> codes[row] + 1] and (
            not of.bounded or <uint64_t> of.times[slot] - <uint64_t> events[row] < of.ttl
        )
    for k in range(left):
        row = rows[k]
        mine.event = <uint64_t> events[row] ^ SIGN
        mine.created = <uint64_t> created[row] ^ SIGN
        mine.place = place + row
        if better(&mine, &bests[low[k]]):
            bests[low[k]] = mine
    return at


cdef void run(
    const Order* of, uint32_t first, uint32_t stop, const Best* own, int64_t* out
) noexcept nogil:
    cdef const uint32_t* starts = of.starts
    cdef const Best* bests = own - starts[first]
    cdef uint32_t code, slot
    cdef Best best
    for code in range(first, stop):
        memset(&best, 0, sizeof(Best))
        for slot in range(starts[code], starts[code + 1]):
            if better(&bests[slot], &best):
                best = bests[slot]
            if not best.place or (
                of.bounded and <uint64_t> of.times[slot] - (best.event ^ SIGN) >= of.ttl
            ):
                out[of.labels[slot]] = -1
            else:
                out[of.labels[slot]] = <int64_t> best.place - 1


@cython.final
cdef class LabelTimes:
    """Labels by entity and time.

    Args:
        codes: of the labels' entities, int32[n]; one below 0 matches nothing.
        n_codes: all codes are below.
        times: int64[n].
        ttl_us: how long after its event time a row holds; None: for ever.
        cutoff: only rows created by then; None: all.
        known: only rows created by the label's time.
    """

    cdef readonly Py_ssize_t n, n_codes, n_placed
    cdef Order order

    def __init__(
        self, const int32_t[::1] codes, Py_ssize_t n_codes, const int64_t[::1] times, *,
        ttl_us=None, cutoff=None, bint known=False
    ):
        if self.order.starts != NULL:
            raise TypeError("a LabelTimes is made once")
        if len(codes) != len(times) or len(codes) >= 2**31 or not 0 <= n_codes < 2**31:
            raise ValueError(f"{len(codes)} codes below {n_codes} for {len(times)} times")
        self.n, self.n_codes, self.order.known = len(times), n_codes, known
        self.order.bounded = ttl_us is not None and ttl_us < 2**64
        self.order.ttl = max(ttl_us, 0) if self.order.bounded else 0
        self.order.cutoff = INT64_MAX if cutoff is None else cutoff
        self.order.starts = <uint32_t*> room((n_codes + 2) * sizeof(uint32_t))
        self.order.times = <int64_t*> room((self.n + FEW) * sizeof(int64_t))
        self.order.labels = <uint32_t*> room(self.n * sizeof(uint32_t))
        with nogil:
            if self.n:
                self.place(&codes[0], &times[0])
        self.plan_directories()

    def __dealloc__(self):
        free(self.order.starts)
        free(self.order.times)
        free(self.order.labels)
        free(self.order.directory_of)
        free(self.order.directories)
        free(self.order.cells)

    cdef void place(self, const int32_t* codes, const int64_t* times) noexcept nogil:
        """Labels to their codes, by counting; of one code in the order they came in."""
        cdef Py_ssize_t i, code
        cdef uint32_t at
        cdef uint32_t* ends = self.order.starts + 1    # where the next label of a code goes, at last its end
        for i in range(self.n):
            if 0 <= codes[i] < self.n_codes:
                ends[codes[i] + 1] += 1
                self.n_placed += 1
        for code in range(1, self.n_codes + 1):
            ends[code] += ends[code - 1]
        for i in range(self.n):
            if 0 <= codes[i] < self.n_codes:
                at = ends[codes[i]]
                ends[codes[i]] = at + 1
                self.order.times[at] = times[i]
                self.order.labels[at] = <uint32_t> i

    cdef int plan_directories(self) except -1:
        """Where the directory of each entity with many labels will be."""
        cdef Py_ssize_t code, count = 0
        cdef uint32_t at = 0
        for code in range(self.n_codes):
            count += self.order.starts[code + 1] - self.order.starts[code] > FEW
        if not count:
            return 0
        self.order.directory_of = <uint32_t*> room(self.n_codes * sizeof(uint32_t))
        self.order.directories = <Directory*> room(count * sizeof(Directory))
        count = 0
        for code in range(self.n_codes):
            if self.order.starts[code + 1] - self.order.starts[code] > FEW:
                self.order.directory_of[code] = <uint32_t> count
                self.order.directories[count].at = at
                at += cells_of(self.order.starts[code + 1] - self.order.starts[code]) + 1
                count += 1
        self.order.cells = <uint32_t*> room(at * sizeof(uint32_t))
        return 0

    def parts(self, Py_ssize_t count):
        """All labels that have a code, in up to `count` Parts of about the same size."""
        cdef Py_ssize_t code, first = 0
        cdef bint full
        cdef list found = []
        cdef const uint32_t* starts = self.order.starts
        if not self.n_placed:
            return found
        for code in range(1, self.n_codes + 1):
            full = <uint64_t> starts[code] * count >= <uint64_t> self.n_placed * (len(found) + 1)
            if full or code == self.n_codes:
                found.append(Part(self, first, code))
                first = code
        return found


@cython.final
cdef class Part:
    """The labels of codes first … stop - 1; made by LabelTimes.parts(). For one thread at a time."""

    cdef LabelTimes of
    cdef Order* order
    cdef uint32_t first, stop
    cdef Py_ssize_t n
    cdef Best* bests               # of the label at starts[first] and on; NULL until `sort`

    def __init__(self, LabelTimes of, Py_ssize_t first, Py_ssize_t stop):
        if self.of is not None or not 0 <= first <= stop <= of.n_codes:
            raise IndexError(f"codes {first} to {stop}")
        self.order = &of.order
        self.of, self.first, self.stop = of, <uint32_t> first, <uint32_t> stop
        self.n = of.order.starts[stop] - of.order.starts[first]

    def __len__(self):
        return self.n

    def __dealloc__(self):
        free(self.bests)

    def sort(self):
        """Put the labels in order, before the first scan."""
        cdef Py_ssize_t code, longest = 0
        cdef Order* o = self.order
        cdef Moment* moments
        if self.bests != NULL:
            raise ValueError("a Part is sorted once")
        for code in range(self.first, self.stop):
            longest = max(longest, <Py_ssize_t> (o.starts[code + 1] - o.starts[code]))
        moments = <Moment*> malloc((2 * longest + 1) * sizeof(Moment))
        if moments == NULL:
            raise MemoryError
        with nogil:
            for code in range(self.first, self.stop):
                sort_labels(o, code, moments, moments + longest)
                if o.starts[code + 1] - o.starts[code] > FEW:
                    fill_directory(o, code)
        free(moments)
        self.bests = <Best*> room(self.n * sizeof(Best))

    def scan(
        self, const int32_t[::1] codes, const int64_t[::1] event_ts, const int64_t[::1] created_ts,
        int64_t place
    ):
        """Offer rows to the labels; row i has place `place` + i.

        Args:
            codes: of the rows' entities, int32[m]; those of other parts, or of none, are passed over.
            event_ts, created_ts: int64[m].
        """
        cdef Py_ssize_t at = 0, m = len(codes)
        if not m == len(event_ts) == len(created_ts) or m >= 2**32:
            raise ValueError(f"{m} codes, {len(event_ts)} event times, {len(created_ts)} created times")
        if self.bests == NULL or place < 0:
            raise ValueError("a Part that was not sorted, or a place below 0")
        if m and self.n and not (self.order.bounded and not self.order.ttl):
            with nogil:
                while at < m:
                    at = scan_block(
                        self.order, self.first, self.stop, self.bests,
                        &codes[0], &event_ts[0], &created_ts[0], at, m, <uint64_t> place + 1)

    def winners(self, int64_t[::1] out):
        """Write the places of the labels' rows; -1 where there is none."""
        if len(out) != self.of.n or self.bests == NULL:
            raise ValueError("places of other labels, or a Part that was not sorted")
        if self.n:
            with nogil:
                run(self.order, self.first, self.stop, self.bests, &out[0])
