"""For each label the row in force at its time, of rows that come in order of their event times.

Labels are put in that order too, and both are gone through once, together. Each entity has its last row so
far, and a label takes what its entity has when its time comes:

    rows           10:e1  20:e2  30:e1         40:e1
    last of e1     10     10     30            40
    labels                    25:e1   35:e1           ->  10, 30

Nothing is searched for and nothing dealt out, so this is the short way; asof.pyx has the one for any order. A
Sweep goes through some of the rows and the labels of their time, each in a thread of its own. A label without
a row in its own Sweep has what the ones before ended with.

What a Sweep cannot take (a row before the last one, or one that counts from later than its event time) it
leaves, with all that follow; a Best for each label is where the other way goes on from.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from asof_best cimport SIGN, Best, room

cdef extern from * nogil:
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    AHEAD = 16                 # rows, or labels, whose entity is on its way from memory
    DIGIT = 11                 # bits of a time that labels are sorted by at once
    DIGITS = 1 << DIGIT
    PASSES = 6                 # so many digits have 64 bits


cdef struct Label:
    int64_t time
    uint32_t code
    uint32_t number            # which label it is


@cython.final
cdef class TimeOrder:
    """Labels in order of time.

    Args:
        codes: of the labels' entities, int32[n]; one below 0 matches nothing.
        n_codes: all codes are below.
        times: int64[n].
        bests: what each label has, uint64[n, 3] of zeros: event and created time with the sign flipped,
            1 + place.
        cutoff: only rows created by then; None: all.
        known: only rows created by the label's time.
    """

    cdef readonly Py_ssize_t n, n_codes, n_placed
    cdef uint64_t[:, ::1] held
    cdef Best* bests
    cdef Label* labels
    cdef int64_t cutoff
    cdef bint known

    def __init__(
        self, const int32_t[::1] codes, Py_ssize_t n_codes, const int64_t[::1] times,
        uint64_t[:, ::1] bests, *, cutoff=None, bint known=False
    ):
        cdef Label* spare
        cdef bint moved
        if self.labels != NULL:
            raise TypeError("a TimeOrder is made once")
        if len(codes) != len(times) or len(codes) >= 2**31 or not 0 <= n_codes < 2**31:
            raise ValueError(f"{len(codes)} codes below {n_codes} for {len(times)} times")
        if bests.shape[0] != len(times) or bests.shape[1] != 3:
            raise ValueError(f"{bests.shape[0]} bests of {bests.shape[1]} for {len(times)} labels")
        self.n, self.n_codes, self.known = len(times), n_codes, known
        self.cutoff = INT64_MAX if cutoff is None else cutoff
        self.held, self.bests = bests, <Best*> &bests[0, 0] if self.n else NULL
        self.labels = <Label*> room(self.n * sizeof(Label))
        spare = <Label*> room(self.n * sizeof(Label))
        with nogil:
            if self.n:
                self.place(&codes[0], &times[0])
            moved = sort_by_time(self.labels, spare, self.n_placed)
        if moved:
            self.labels, spare = spare, self.labels
        free(spare)

    def __dealloc__(self):
        free(self.labels)

    cdef void place(self, const int32_t* codes, const int64_t* times) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(self.n):
            if 0 <= codes[i] < self.n_codes:
                self.labels[self.n_placed] = Label(times[i], <uint32_t> codes[i], <uint32_t> i)
                self.n_placed += 1

    cdef Py_ssize_t first_not_before(self, int64_t time) noexcept nogil:
        cdef Py_ssize_t low = 0, high = self.n_placed, half
        while low < high:
            half = (low + high) >> 1
            if self.labels[half].time < time:
                low = half + 1
            else:
                high = half
        return low


@cython.final
cdef class Sweep:
    """Rows of a stretch of time, and the labels of it. For one thread at a time.

    Args:
        of: the labels.
        first: the stretch begins here.
        stop: and ends before; None: never.
    """

    cdef TimeOrder of
    cdef Best* last                    # of each code, and one that is none's
    cdef int64_t first, now, final     # event times: the stretch's first, the last row's, the stretch's last
    cdef Py_ssize_t begin, at, end     # labels: the first, the next, one after the last
    cdef Py_ssize_t n_orphans          # without a row, they stand at `begin` …

    def __init__(self, TimeOrder of, int64_t first, stop=None):
        if self.of is not None:
            raise TypeError("a Sweep is made once")
        if stop is not None and stop <= first:
            raise ValueError(f"a stretch from {first} to {stop}")
        self.of, self.first, self.now, self.final = of, first, first, INT64_MAX if stop is None else stop - 1
        self.begin = self.at = of.first_not_before(first)
        self.end = of.n_placed if stop is None else of.first_not_before(stop)
        self.last = <Best*> room((of.n_codes + 1) * sizeof(Best))

    def __dealloc__(self):
        free(self.last)

    def rows(
        self, const int32_t[::1] codes, const int64_t[::1] event_ts, const int64_t[::1] created_ts,
        int64_t place
    ):
        """Take the next rows; row i has place `place` + i.

        Args:
            codes: of the rows' entities, int32[m]; one that no label has is one of none.
            event_ts, created_ts: int64[m].

        Returns:
            How many were taken: the first that was not, and all after it, are to be looked at otherwise.
        """
        cdef Py_ssize_t m = len(codes), taken = 0
        if not m == len(event_ts) == len(created_ts):
            raise ValueError(f"{m} codes, {len(event_ts)} event times, {len(created_ts)} created times")
        if place < 0:
            raise ValueError("a place below 0")
        if m:
            with nogil:
                taken = self.take(&codes[0], &event_ts[0], &created_ts[0], m, <uint64_t> place + 1)
        return taken

    cdef inline Best* last_of(self, int32_t code) noexcept nogil:
        if <uint32_t> code < <uint32_t> self.of.n_codes:
            return self.last + code
        return self.last + self.of.n_codes

    cdef Py_ssize_t take(
        self, const int32_t* codes, const int64_t* events, const int64_t* created, Py_ssize_t m,
        uint64_t place
    ) noexcept nogil:
        cdef Py_ssize_t i
        cdef int64_t now = self.now, due = self.next_time()
        cdef int64_t final = self.final, cutoff = self.of.cutoff
        cdef bint known = self.of.known
        cdef Best* last
        cdef Best mine
        for i in range(m):
            if i + AHEAD < m:
                __builtin_prefetch(self.last_of(codes[i + AHEAD]), 1, 3)
            if events[i] < now or events[i] > final or (known and created[i] > events[i]):
                break
            now = events[i]
            if due < now:
                self.answer(now - 1)
                due = self.next_time()
            if created[i] > cutoff:
                continue
            mine = Best(<uint64_t> now ^ SIGN, <uint64_t> created[i] ^ SIGN, place + i)
            last = self.last_of(codes[i])
            if mine.event != last.event or mine.created >= last.created:
                last[0] = mine
        else:
            i = m
        self.now = now
        return i

    cdef inline int64_t next_time(self) noexcept nogil:
        return self.of.labels[self.at].time if self.at < self.end else INT64_MAX

    cdef void answer(self, int64_t until) noexcept nogil:
        """Labels up to that time have what their entities have now."""
        cdef Label* labels = self.of.labels
        cdef Label label
        cdef Best* last
        while self.at < self.end and labels[self.at].time <= until:
            if self.at + AHEAD < self.end:
                __builtin_prefetch(&self.last[labels[self.at + AHEAD].code], 0, 3)
                __builtin_prefetch(&self.of.bests[labels[self.at + AHEAD].number], 1, 3)
            label = labels[self.at]
            last = &self.last[label.code]
            if last.place:
                self.of.bests[label.number] = last[0]
            else:                                      # stands where labels have been read already
                labels[self.begin + self.n_orphans] = label
                self.n_orphans += 1
            self.at += 1

    def finish(self):
        """No more rows come: all labels that are left have the last ones."""
        with nogil:
            self.answer(INT64_MAX)

    def inherit(self, list before):
        """Labels without a row have what the finished sweeps before ended with; the nearest is the last."""
        cdef Sweep other
        for other in before[::-1]:
            if other.of is not self.of or other.final >= self.first:
                raise ValueError("a Sweep of other labels, or of a later stretch")
            with nogil:
                self.adopt(other.last)

    cdef void adopt(self, const Best* last) noexcept nogil:
        cdef Py_ssize_t i, left = 0
        cdef Label* labels = self.of.labels + self.begin
        for i in range(self.n_orphans):
            if last[labels[i].code].place:
                self.of.bests[labels[i].number] = last[labels[i].code]
            else:
                labels[left] = labels[i]
                left += 1
        self.n_orphans = left


def winners(
    const uint64_t[:, ::1] bests, const int64_t[::1] times, int64_t[::1] out, Py_ssize_t start,
    Py_ssize_t stop, *, ttl_us=None
):
    """Write the places of the rows of labels start … stop - 1; -1 where there is none, or it is too old.

    Args:
        bests: as a TimeOrder's, [n, 3].
        times: of the labels, int64[n].
        out: int64[n].
        ttl_us: how long after its event time a row holds; None: for ever.
    """
    cdef bint bounded = ttl_us is not None and ttl_us < 2**64
    cdef uint64_t ttl = max(ttl_us, 0) if bounded else 0
    cdef const Best* best
    cdef Py_ssize_t i, n = len(out)
    if not (bests.shape[0] == n == len(times) and bests.shape[1] == 3 and 0 <= start <= stop <= n):
        raise ValueError(f"labels {start} to {stop} of {bests.shape[0]}, {len(times)} and {len(out)}")
    if start == stop:
        return
    best = <const Best*> &bests[0, 0]
    with nogil:
        for i in range(start, stop):
            if not best[i].place or (bounded and <uint64_t> times[i] - (best[i].event ^ SIGN) >= ttl):
                out[i] = -1
            else:
                out[i] = <int64_t> best[i].place - 1


cdef bint sort_by_time(Label* labels, Label* spare, Py_ssize_t n) noexcept nogil:
    """By digits, the lowest first, each by counting; whether they are in `spare` at last."""
    cdef int64_t[PASSES * DIGITS] ends
    cdef Py_ssize_t i, pass_
    cdef int64_t low = INT64_MAX, before, count
    cdef uint64_t since
    cdef int64_t* end
    cdef Label* source = labels
    cdef bint sorted = True
    for i in range(n):
        low = min(low, labels[i].time)
        sorted = sorted and (not i or labels[i - 1].time <= labels[i].time)
    if sorted:
        return False
    memset(ends, 0, sizeof(ends))
    for i in range(n):
        since = <uint64_t> labels[i].time - <uint64_t> low
        for pass_ in range(PASSES):
            ends[pass_ * DIGITS + (since >> pass_ * DIGIT & DIGITS - 1)] += 1
    for pass_ in range(PASSES):
        end, before = ends + pass_ * DIGITS, 0
        if end[(<uint64_t> source[0].time - <uint64_t> low) >> pass_ * DIGIT & DIGITS - 1] == n:
            continue                                   # they all have that digit
        for i in range(DIGITS):
            count, end[i] = end[i], before
            before += count
        for i in range(n):
            since = (<uint64_t> source[i].time - <uint64_t> low) >> pass_ * DIGIT & DIGITS - 1
            spare[end[since]] = source[i]
            end[since] += 1
        source, spare = spare, source
    return source != labels
