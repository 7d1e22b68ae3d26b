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
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from asof_best cimport SIGN, Best, place_at, room

cdef extern from * nogil:
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    AHEAD = 16                 # rows, or labels, whose entity is on its way from memory
    DIGIT = 11                 # bits of a time that labels are sorted by at once
    DIGITS = 1 << DIGIT
    MOVES = 8                  # of each label, on average, that are less work than a pass more


cdef struct Label:
    int64_t time
    uint32_t code
    uint32_t number            # which label it is


@cython.final
cdef class Sweep:
    """The rows of a stretch of time, and its labels. For one thread at a time.

    Args:
        codes: of the labels' entities, int32[n]; one below 0 matches nothing.
        n_codes: all codes are below.
        times: of the labels, int64[n].
        first: the stretch begins here.
        stop: and ends before; None: never.
        cutoff: only rows created by then; None: all.
        known: only rows created by the label's time.
    """

    cdef readonly Py_ssize_t n_labels, n_codes, n_placed    # of all; of these, in the stretch
    cdef Label* labels             # by time
    cdef Best* bests               # of each
    cdef Best* last                # of each code, and one that is none's
    cdef Py_ssize_t at             # the next label
    cdef int64_t first, now, final     # event times: the stretch's first, the last row's, the stretch's last
    cdef int64_t cutoff
    cdef bint known

    def __init__(
        self, const int32_t[::1] codes, Py_ssize_t n_codes, const int64_t[::1] times, int64_t first,
        stop=None, *, cutoff=None, bint known=False
    ):
        cdef Label* spare
        if self.last != NULL:
            raise TypeError("a Sweep is made once")
        if len(codes) != len(times) or len(codes) >= 2**31 or not 0 <= n_codes < 2**31:
            raise ValueError(f"{len(codes)} codes below {n_codes} for {len(times)} times")
        if stop is not None and stop <= first:
            raise ValueError(f"a stretch from {first} to {stop}")
        self.n_labels, self.n_codes, self.known = len(times), n_codes, known
        self.first, self.now, self.final = first, first, INT64_MAX if stop is None else stop - 1
        self.cutoff = INT64_MAX if cutoff is None else cutoff
        self.last = <Best*> room((n_codes + 1) * sizeof(Best))
        with nogil:
            if len(times):
                self.n_placed = self.place(&codes[0], &times[0], NULL)
        self.labels = <Label*> room((self.n_placed + 1) * sizeof(Label))
        spare = <Label*> room(self.n_placed * sizeof(Label))
        with nogil:
            if self.n_placed:
                self.place(&codes[0], &times[0], self.labels)
                sort_by_time(&self.labels, &spare, self.n_placed)
        free(spare)
        self.bests = <Best*> room(self.n_placed * sizeof(Best))

    def __dealloc__(self):
        free(self.labels)
        free(self.bests)
        free(self.last)

    cdef Py_ssize_t place(self, const int32_t* codes, const int64_t* times, Label* out) noexcept nogil:
        """How many labels are in the stretch; written, unless `out` is NULL, which has room for one more."""
        cdef Py_ssize_t i, n = 0
        for i in range(self.n_labels):
            if out != NULL:
                out[n] = Label(times[i], <uint32_t> codes[i], <uint32_t> i)
            n += (
                (times[i] >= self.first) & (times[i] <= self.final)
                & (<uint32_t> codes[i] < <uint32_t> self.n_codes)
            )
        return n

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
        if <uint32_t> code < <uint32_t> self.n_codes:
            return self.last + code
        return self.last + self.n_codes

    cdef Py_ssize_t take(
        self, const int32_t* codes, const int64_t* events, const int64_t* created, Py_ssize_t m,
        uint64_t place
    ) noexcept nogil:
        cdef Py_ssize_t i
        cdef int64_t now = self.now, due = self.next_time()
        cdef int64_t final = self.final, cutoff = self.cutoff
        cdef bint known = self.known
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
        return self.labels[self.at].time if self.at < self.n_placed else INT64_MAX

    cdef void answer(self, int64_t until) noexcept nogil:
        """Labels up to that time have what their entities have now."""
        cdef Py_ssize_t at = self.at
        while at < self.n_placed and self.labels[at].time <= until:
            if at + AHEAD < self.n_placed:
                __builtin_prefetch(&self.last[self.labels[at + AHEAD].code], 0, 3)
            self.bests[at] = self.last[self.labels[at].code]
            at += 1
        self.at = at

    def finish(self):
        """No more rows come: all labels that are left have the last ones."""
        with nogil:
            self.answer(INT64_MAX)

    def inherit(self, list before):
        """Labels without a row have what the finished sweeps before ended with; the nearest is the last."""
        cdef Sweep other
        for other in before[::-1]:
            if other.n_codes != self.n_codes or other.final >= self.first:
                raise ValueError("a Sweep of other labels, or of a later stretch")
            with nogil:
                left = self.adopt(other.last)
            if not left:
                return

    cdef Py_ssize_t adopt(self, const Best* last) noexcept nogil:
        """How many labels are still without one."""
        cdef Py_ssize_t i, left = 0
        for i in range(self.n_placed):
            if not self.bests[i].place:
                self.bests[i] = last[self.labels[i].code]
                left += not self.bests[i].place
        return left

    def winners(self, int64_t[::1] out, *, ttl_us=None):
        """Write the places of the rows of the stretch's labels; -1 where there is none, or it is too old.

        Args:
            out: of all labels, int64[n].
            ttl_us: how long after its event time a row holds; None: for ever.
        """
        cdef bint bounded = ttl_us is not None and ttl_us < 2**64
        cdef uint64_t ttl = max(ttl_us, 0) if bounded else 0
        cdef Py_ssize_t i
        if len(out) != self.n_labels:
            raise ValueError(f"{len(out)} places for {self.n_labels} labels")
        if not self.n_placed:
            return
        cdef int64_t* places = &out[0]
        with nogil:
            for i in range(self.n_placed):
                places[self.labels[i].number] = place_at(&self.bests[i], self.labels[i].time, bounded, ttl)

    def hand_over(self, uint64_t[:, ::1] bests):
        """Write what the stretch's labels have, for Part.begin.

        Args:
            bests: of all labels, uint64[n, 3]: event and created time with the sign flipped, 1 + place.
        """
        cdef Py_ssize_t i
        if bests.shape[0] != self.n_labels or bests.shape[1] != 3:
            raise ValueError(f"{bests.shape[0]} bests of {bests.shape[1]} for {self.n_labels} labels")
        with nogil:
            for i in range(self.n_placed):
                (<Best*> &bests[0, 0])[self.labels[i].number] = self.bests[i]


cdef void sort_by_time(Label** labels, Label** spare, Py_ssize_t n) noexcept nogil:
    """By the highest two digits of what they differ in, which leaves little out of order, and by insertion.

    Where that is much, for nearly all times have the same two, by all digits.
    """
    cdef Py_ssize_t i
    cdef int64_t low = INT64_MAX, high = INT64_MIN
    cdef int bits = 0
    cdef bint sorted = True
    for i in range(n):
        low, high = min(low, labels[0][i].time), max(high, labels[0][i].time)
        sorted = sorted and (not i or labels[0][i - 1].time <= labels[0][i].time)
    if sorted:
        return
    while bits < 64 and (<uint64_t> high - <uint64_t> low) >> bits:
        bits += 1
    sort_by_digits(labels, spare, n, low, max(bits - 2 * DIGIT, 0), bits)
    if not sort_by_insertion(labels[0], n):
        sort_by_digits(labels, spare, n, low, 0, bits)


cdef void sort_by_digits(
    Label** labels, Label** spare, Py_ssize_t n, int64_t low, int first, int bits
) noexcept nogil:
    """By bits `first` … bits - 1 of the time since `low`: the lowest digit first, each by counting."""
    cdef int64_t[DIGITS] ends
    cdef int64_t before, count
    cdef Py_ssize_t i
    cdef uint64_t digit
    cdef const Label* source
    cdef int shift = first
    while shift < bits:
        source, before = labels[0], 0
        memset(ends, 0, sizeof(ends))
        for i in range(n):
            ends[(<uint64_t> source[i].time - <uint64_t> low) >> shift & (DIGITS - 1)] += 1
        for i in range(DIGITS):
            count, ends[i] = ends[i], before
            before += count
        for i in range(n):
            digit = (<uint64_t> source[i].time - <uint64_t> low) >> shift & (DIGITS - 1)
            spare[0][ends[digit]] = source[i]
            ends[digit] += 1
        labels[0], spare[0] = spare[0], labels[0]
        shift += DIGIT


cdef bint sort_by_insertion(Label* labels, Py_ssize_t n) noexcept nogil:
    """False, and no label lost, if that takes too long."""
    cdef Py_ssize_t i, k, moves = 0
    cdef Label label
    for i in range(1, n):
        if labels[i - 1].time <= labels[i].time:
            continue
        label, k = labels[i], i
        while k and labels[k - 1].time > label.time:
            labels[k] = labels[k - 1]
            k -= 1
        labels[k] = label
        moves += i - k
        if moves > MOVES * n:
            return False
    return True
