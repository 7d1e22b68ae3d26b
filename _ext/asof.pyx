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
few enough to stay in a core's own cache. So rows are dealt out by part first, a block at a time, and then
each part takes its rows of some blocks in a row. Parts share nothing that is written, and each thread takes
one after the other. Within a part 64 rows take each step together, and fetch what the next one needs. Among
many labels of an entity a row finds its place by a directory: the labels' times from first to last in equal
cells, about one to a label.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from asof_best cimport SIGN, Best, better, place_at, room
from asof_order cimport FEW, Directory, Moment, Order, cells_of, fill_directory, first_not_before, narrow
from asof_order cimport sort_labels

cdef extern from * nogil:
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    BLOCK = 64                 # rows that take a step together
    MOST_PARTS = 4096


cdef struct Row:
    int64_t event
    int64_t created
    uint32_t code
    uint32_t number            # in its block


cdef void scan_block(
    const Order* of, Best* bests, const Row* rows, Py_ssize_t n, uint64_t place
) noexcept nogil:
    """Up to BLOCK rows of one part. Each step has what the one before left."""
    cdef uint32_t[BLOCK] left
    cdef uint32_t[BLOCK] low
    cdef uint32_t[BLOCK] high
    cdef const uint32_t* starts = of.starts
    cdef Py_ssize_t k, m = 0
    cdef uint32_t slot
    cdef const Row* row
    cdef Best mine
    for k in range(n):
        __builtin_prefetch(&starts[rows[k].code], 0, 3)
    for k in range(n):
        low[k], high[k] = starts[rows[k].code], starts[rows[k].code + 1]
        if high[k] - low[k] > FEW:
            narrow(of, rows[k].code, counts_from(of, &rows[k]), &low[k], &high[k])
        else:
            __builtin_prefetch(&of.times[low[k]], 0, 3)
            __builtin_prefetch(&of.times[high[k] - 1], 0, 3)
    for k in range(n):                              # the first label each is of use to
        row = &rows[k]
        slot = first_not_before(of.times, low[k], high[k], counts_from(of, row))
        left[m], low[m] = <uint32_t> k, slot
        __builtin_prefetch(&bests[slot], 1, 3)
        m += slot < starts[row.code + 1] and (
            not of.bounded or <uint64_t> of.times[slot] - <uint64_t> row.event < of.ttl
        )
    for k in range(m):
        row = &rows[left[k]]
        mine.event = <uint64_t> row.event ^ SIGN
        mine.created = <uint64_t> row.created ^ SIGN
        mine.place = place + row.number
        if better(&mine, &bests[low[k]]):
            bests[low[k]] = mine


cdef inline int64_t counts_from(const Order* of, const Row* row) noexcept nogil:
    if of.known and row.created > row.event:
        return row.created
    return row.event


cdef void run(
    const Order* of, uint32_t first, uint32_t stop, const Best* bests, int64_t* out
) noexcept nogil:
    cdef const uint32_t* starts = of.starts
    cdef uint32_t code, slot
    cdef Best best
    for code in range(first, stop):
        memset(&best, 0, sizeof(Best))
        for slot in range(starts[code], starts[code + 1]):
            if better(&bests[slot], &best):
                best = bests[slot]
            out[of.labels[slot]] = place_at(&best, of.times[slot], of.bounded, of.ttl)


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
    cdef Py_ssize_t n_parts
    cdef Order order
    cdef uint16_t* part_of         # [n_codes]; NULL until there are parts
    cdef Best* bests               # [placed]; likewise

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
        free(self.part_of)
        free(self.bests)

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
        """All labels that have a code, in up to `count` Parts of about the same size. Once."""
        cdef Py_ssize_t code, first = 0, part = 0
        cdef list found = []
        cdef const uint32_t* starts = self.order.starts
        if self.part_of != NULL or not 0 < count <= MOST_PARTS:
            raise ValueError(f"{count} parts, or there are some already")
        self.bests = <Best*> room(self.n_placed * sizeof(Best))
        self.part_of = <uint16_t*> room(self.n_codes * sizeof(uint16_t))
        for code in range(self.n_codes if self.n_placed else 0):
            self.part_of[code] = <uint16_t> part
            if <uint64_t> starts[code + 1] * count >= <uint64_t> self.n_placed * (part + 1):
                found.append(Part(self, part, first, code + 1))
                first, part = code + 1, part + 1
        self.n_parts = part
        return found


@cython.final
cdef class Rows:
    """A block of rows, those of each part together. Filled by one thread, again and again.

    Args:
        of: the labels, whose parts have been made.
    """

    cdef LabelTimes of
    cdef Row* rows
    cdef uint32_t* ends            # of the parts before this one, of this one, …; rows of none come last
    cdef Py_ssize_t room
    cdef uint64_t place

    def __init__(self, LabelTimes of):
        if self.of is not None or of.part_of == NULL:
            raise ValueError("Rows are of labels in parts")
        self.of = of
        self.ends = <uint32_t*> room((of.n_parts + 2) * sizeof(uint32_t))

    def __dealloc__(self):
        free(self.rows)
        free(self.ends)

    def fill(
        self, const int32_t[::1] codes, const int64_t[::1] event_ts, const int64_t[::1] created_ts,
        int64_t place
    ):
        """Hold these rows instead of those before; row i has place `place` + i.

        Args:
            codes: of the rows' entities, int32[m]; one that no label has is one of none.
            event_ts, created_ts: int64[m].
        """
        cdef Py_ssize_t m = len(codes)
        if not m == len(event_ts) == len(created_ts) or m >= 2**31:
            raise ValueError(f"{m} codes, {len(event_ts)} event times, {len(created_ts)} created times")
        if place < 0:
            raise ValueError("a place below 0")
        if m > self.room:
            free(self.rows)
            self.rows, self.room = NULL, 0
            self.rows = <Row*> room(m * sizeof(Row))
            self.room = m
        self.place = <uint64_t> place + 1
        memset(self.ends, 0, (self.of.n_parts + 2) * sizeof(uint32_t))
        if m:
            with nogil:
                self.spread(&codes[0], &event_ts[0], &created_ts[0], m)

    cdef inline Py_ssize_t part_at(self, int32_t code, int64_t created) noexcept nogil:
        if <uint32_t> code < <uint32_t> self.of.n_codes and created <= self.of.order.cutoff:
            return self.of.part_of[code]
        return self.of.n_parts

    cdef void spread(
        self, const int32_t* codes, const int64_t* events, const int64_t* created, Py_ssize_t m
    ) noexcept nogil:
        """Each row to the end of its part, by counting."""
        cdef Py_ssize_t i, part
        cdef uint32_t at, before = 0
        cdef uint32_t* ends = self.ends
        for i in range(m):
            ends[self.part_at(codes[i], created[i])] += 1
        for part in range(self.of.n_parts + 1):
            ends[part], before = before, before + ends[part]
        for i in range(m):
            part = self.part_at(codes[i], created[i])
            at = ends[part]
            ends[part] = at + 1
            self.rows[at] = Row(events[i], created[i], <uint32_t> codes[i], <uint32_t> i)


@cython.final
cdef class Part:
    """The labels of codes first … stop - 1; made by LabelTimes.parts(). For one thread at a time."""

    cdef LabelTimes of
    cdef Order* order
    cdef uint32_t first, stop
    cdef Py_ssize_t number, n
    cdef bint sorted
    cdef Best* bests               # of all labels

    def __init__(self, LabelTimes of, Py_ssize_t number, Py_ssize_t first, Py_ssize_t stop):
        if self.of is not None or not 0 <= first <= stop <= of.n_codes:
            raise IndexError(f"codes {first} to {stop}")
        self.order = &of.order
        self.of, self.number, self.first, self.stop = of, number, <uint32_t> first, <uint32_t> stop
        self.bests = of.bests
        self.n = of.order.starts[stop] - of.order.starts[first]

    def __len__(self):
        return self.n

    def sort(self):
        """Put the labels in order, before the first scan."""
        cdef Py_ssize_t code, longest = 0
        cdef Order* o = self.order
        cdef Moment* moments
        if self.sorted or self.bests == NULL:
            raise ValueError("a Part is sorted once, of labels in parts")
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
        self.sorted = True

    def begin(self, const uint64_t[:, ::1] bests):
        """What labels have already, before the first scan; as Sweep.hand_over writes it (asof_sweep.pyx)."""
        cdef uint32_t slot
        if not self.sorted or bests.shape[0] != self.of.n or bests.shape[1] != 3:
            raise ValueError("a Part that was not sorted, or bests of other labels")
        if self.n:
            with nogil:
                for slot in range(self.order.starts[self.first], self.order.starts[self.stop]):
                    self.bests[slot] = (<const Best*> &bests[0, 0])[self.order.labels[slot]]

    def scan(self, Rows rows):
        """Offer the rows that are of this part to its labels."""
        cdef Py_ssize_t at = 0, stop
        if not self.sorted or rows.of is not self.of or self.number >= self.of.n_parts:
            raise ValueError("a Part that was not sorted, or Rows of other labels")
        if self.order.bounded and not self.order.ttl:
            return
        at, stop = rows.ends[self.number - 1] if self.number else 0, rows.ends[self.number]
        with nogil:
            while at < stop:
                scan_block(
                    self.order, self.bests, rows.rows + at, min(stop - at, <Py_ssize_t> BLOCK), rows.place
                )
                at += BLOCK

    def winners(self, int64_t[::1] out):
        """Write the places of the labels' rows; -1 where there is none."""
        if len(out) != self.of.n or not self.sorted:
            raise ValueError("places of other labels, or a Part that was not sorted")
        if self.n:
            with nogil:
                run(self.order, self.first, self.stop, self.bests, &out[0])
