"""Values of chosen rows out of the chunks of a column; materializer/pit/gather_py.py is the twin.

A place is ``chunk << 32 | row``, or -1 for none, which becomes a null:

    chunks   [a b c] [d e]        places   0:1  1:0  -1  0:1        ->  b d ∅ b

Rows lie anywhere, so each value is a miss of every cache: it is asked for `AHEAD` values before it is needed.
Where a line of memory holds many values and some of them are wanted, it is faster to read all of them in the
order of rows (RowOrder). Places are checked once, when they are wrapped; from then on they are trusted.
"""

cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from arrow cimport ArrowArray, bit
from gather_chunks cimport AHEAD, NOTHING, Chunk, read_through, row_of, take_any, take_bits, take_words

import numpy as np

cdef extern from * nogil:
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    SPAN_BITS = 10
    SPAN = 1 << SPAN_BITS      # rows: their values lie in a core's nearest cache
    DEAL_BITS = 15
    DEAL = 1 << DEAL_BITS      # labels: theirs in the next one
    LINE = 64                  # bytes that come from memory at once
    DENSE = 8                  # lines of a span to each pick; with more it is not read through


@cython.final
cdef class Places:
    """Places that have been checked.

    Args:
        places: int64[n].
        lengths: of the chunks.

    Raises:
        IndexError: a place is beyond its chunk.
    """

    cdef const int64_t[::1] places
    cdef readonly tuple lengths
    cdef readonly Py_ssize_t n, n_found

    def __init__(self, const int64_t[::1] places, lengths):
        cdef const int64_t* data
        cdef int64_t* sizes
        cdef Py_ssize_t i, n = len(places), n_chunks
        cdef int64_t place
        self.places, self.lengths, self.n = places, tuple(lengths), n
        n_chunks = len(self.lengths)
        sizes = <int64_t*> calloc(n_chunks + 1, sizeof(int64_t))
        if sizes == NULL:
            raise MemoryError
        for i in range(n_chunks):
            sizes[i] = self.lengths[i]
        data = &places[0] if n else NULL
        self.n_found = 0
        with nogil:
            for i in range(n):
                place = data[i]
                if place < 0:
                    continue
                if place >> 32 >= n_chunks or row_of(place) >= sizes[place >> 32]:
                    break
                self.n_found += 1
            else:
                i = n
        free(sizes)
        if i < n:
            raise IndexError(f"place {i}: row {row_of(places[i])} of chunk {places[i] >> 32}")

    def halves(self):
        """Places alone, the first half and the rest."""
        return np.asarray(self.places[:self.n // 2]), np.asarray(self.places[self.n // 2:])

    def found(self, uint8_t[::1] bits):
        """Write a bitmap of those that are not -1."""
        cdef Py_ssize_t i
        cdef uint8_t* out
        cdef const int64_t* at
        if len(bits) * 8 < self.n:
            raise ValueError(f"{len(bits)} bytes for {self.n} bits")
        if not self.n:
            return
        out, at = &bits[0], &self.places[0]
        memset(out, 0, len(bits))
        with nogil:
            for i in range(self.n):
                out[i >> 3] |= <uint8_t> ((at[i] >= 0) << (i & 7))


@cython.final
cdef class Source:
    """A column to take values from.

    Args:
        chunks: Arrow arrays of one type, of any offset.
        width: bytes of a value, or of an item of a fixed or variable list; 0: values are bits.
        kind: "values"; "fixed": a list of `length` items, taken as one value; "lists": a list of varying
            length, or text or bytes, whose items are bytes.
    """

    cdef Chunk* chunks
    cdef Py_ssize_t n_chunks, width
    cdef readonly bint has_nulls
    cdef bint varying
    cdef list held
    cdef readonly tuple lengths

    def __init__(self, chunks, Py_ssize_t width, str kind, Py_ssize_t length=1):
        cdef Py_ssize_t c
        cdef const ArrowArray* memory
        if self.held is not None or width < 0:
            raise TypeError("a Source is made once, of values 0 or more bytes wide")
        self.n_chunks, self.varying = len(chunks), kind == "lists"
        self.width = width * length if kind == "fixed" else width
        self.lengths = tuple(map(len, chunks))
        self.held = []
        self.chunks = <Chunk*> calloc(self.n_chunks + 1, sizeof(Chunk))
        if self.chunks == NULL:
            raise MemoryError
        for c in range(self.n_chunks):
            _, capsule = chunks[c].__arrow_c_array__()
            self.held.append(capsule)
            memory = <const ArrowArray*> PyCapsule_GetPointer(capsule, "arrow_array")
            if memory.length:
                self.attach(&self.chunks[c], memory, width, kind)

    def __dealloc__(self):
        free(self.chunks)

    cdef int attach(self, Chunk* chunk, const ArrowArray* memory, Py_ssize_t width, str kind) except -1:
        cdef const ArrowArray* items
        chunk.offset = memory.offset
        if memory.null_count:
            chunk.present = <const uint8_t*> memory.buffers[0]
            self.has_nulls = self.has_nulls or chunk.present != NULL
        if kind == "values":
            chunk.data = <const char*> memory.buffers[1] + memory.offset * width
            return 0
        if self.varying:
            chunk.ends = <const int32_t*> memory.buffers[1] + memory.offset
        if self.varying and memory.n_buffers == 3:
            chunk.data = <const char*> memory.buffers[2]
            return 0
        items = memory.children[0]
        chunk.data = <const char*> items.buffers[1] + items.offset * width
        if not self.varying:
            chunk.data += memory.offset * self.width
        return 0

    cdef const int64_t* ask(self, Places places) except? NULL:
        if places.lengths != self.lengths:
            raise ValueError("places in chunks of other lengths")
        return &places.places[0] if places.n else NULL

    def present(self, Places places, uint8_t[::1] bits):
        """Write a bitmap of the values that are there and not null."""
        cdef const int64_t* at = self.ask(places)
        cdef Py_ssize_t i, n = places.n
        cdef const Chunk* chunk
        cdef uint8_t* out
        cdef int64_t row
        cdef bint there
        if len(bits) * 8 < n:
            raise ValueError(f"{len(bits)} bytes for {n} bits")
        if not n:
            return
        out = &bits[0]
        memset(out, 0, len(bits))
        with nogil:
            for i in range(n):
                if i + AHEAD < n and at[i + AHEAD] >= 0:
                    chunk = &self.chunks[at[i + AHEAD] >> 32]
                    if chunk.present != NULL:
                        row = chunk.offset + row_of(at[i + AHEAD])
                        __builtin_prefetch(chunk.present + (row >> 3), 0, 0)
                if at[i] >= 0:
                    chunk = &self.chunks[at[i] >> 32]
                    there = chunk.present == NULL or bit(chunk.present, chunk.offset + row_of(at[i]))
                    out[i >> 3] |= <uint8_t> (there << (i & 7))

    def values(self, Places places, uint8_t[::1] out):
        """Write values one after the other; zeros for none. Bits fill bytes from the lowest on."""
        cdef const int64_t* at = self.ask(places)
        cdef Py_ssize_t n = places.n
        if len(out) < (n * self.width if self.width else (n + 7) // 8):
            raise ValueError(f"{len(out)} bytes for {n} values of {self.width}")
        if not n or not len(out) or self.varying:
            return
        if not self.width:
            memset(&out[0], 0, len(out))
        with nogil:
            if self.width == 8:
                take_words(self.chunks, at, n, 8, <char*> &out[0])
            elif self.width == 4:
                take_words(self.chunks, at, n, 4, <char*> &out[0])
            elif not self.width:
                take_bits(self.chunks, at, n, &out[0])
            else:
                take_any(self.chunks, at, n, self.width, <char*> &out[0])

    def ends(self, Places places, int32_t[::1] out):
        """Write where each value ends, int32[n + 1] from 0 on.

        Returns:
            How many items all have together; more than int32 holds: `out` is of no use.
        """
        cdef const int64_t* at = self.ask(places)
        cdef Py_ssize_t i, n = places.n
        cdef int64_t total = 0, place
        cdef const Chunk* chunk
        cdef int32_t* end
        if len(out) != n + 1 or not self.varying:
            raise ValueError(f"{len(out)} ends for {n} values")
        end = &out[0]
        end[0] = 0
        with nogil:
            for i in range(n):
                if i + AHEAD < n and at[i + AHEAD] >= 0:
                    place = at[i + AHEAD]
                    __builtin_prefetch(self.chunks[place >> 32].ends + row_of(place), 0, 0)
                place = at[i]
                if place >= 0:
                    chunk = &self.chunks[place >> 32]
                    if chunk.present == NULL or bit(chunk.present, chunk.offset + row_of(place)):
                        total += chunk.ends[row_of(place) + 1] - chunk.ends[row_of(place)]
                        if total > INT32_MAX:
                            break
                end[i + 1] = <int32_t> total
        return total

    def items(self, Places places, const int32_t[::1] ends, uint8_t[::1] out):
        """Write the items of all values, whose `ends` must be what `ends` wrote."""
        cdef const int64_t* at = self.ask(places)
        cdef Py_ssize_t i, n = places.n
        cdef int64_t place, size, width = self.width
        cdef const Chunk* chunk
        cdef char* to
        cdef const int32_t* end
        if len(ends) != n + 1 or not self.varying or len(out) < ends[n] * width:
            raise ValueError(f"{len(ends)} ends for {n} values, {len(out)} bytes")
        if not ends[n] or not width:
            return
        to, end = <char*> &out[0], &ends[0]
        with nogil:
            for i in range(n):
                if i + AHEAD < n and at[i + AHEAD] >= 0:
                    chunk = &self.chunks[at[i + AHEAD] >> 32]
                    __builtin_prefetch(chunk.data + chunk.ends[row_of(at[i + AHEAD])] * width, 0, 0)
                size = (<int64_t> end[i + 1] - end[i]) * width
                if size:
                    place = at[i]
                    if place < 0:
                        break
                    chunk = &self.chunks[place >> 32]
                    if size != (<int64_t> chunk.ends[row_of(place) + 1] - chunk.ends[row_of(place)]) * width:
                        break
                    memcpy(to + end[i] * width, chunk.data + chunk.ends[row_of(place)] * width, size)
            else:
                i = n
        if i < n:
            raise ValueError(f"value {i} does not end where `ends` says")


cdef void* zeros(size_t size) except NULL:
    cdef void* made = calloc(size + 1, 1)
    if made == NULL:
        raise MemoryError
    return made


cdef struct Span:              # rows of a chunk that lie together
    int32_t chunk
    uint32_t first, n          # rows
    uint32_t pick              # the first of its picks


@cython.final
cdef class RowOrder:
    """Places in the order of rows, for many columns of short values.

    A column's spans of rows are read one after the other, and values picked from each while it is in cache.
    They are dealt out to labels that stand together; of such a deal, in cache too, each label takes its own:

        labels    0:r9 1:r2 | 2:r8 3:none      ->  picks    r2 | r9 r8 | none      of spans r0 …, r8 …, none
        slots     1    0    | 0    1               dealt    r2 r9 | r8 none
    """

    cdef readonly Py_ssize_t n
    cdef readonly tuple lengths
    cdef Py_ssize_t n_spans        # the last one is of none
    cdef Span* spans               # [n_spans + 1]
    cdef uint16_t* rows            # [n]: of each pick, in its span
    cdef uint32_t* dealt           # [n]: of each pick, where it goes
    cdef uint16_t* slots           # [n]: of each label, where in its deal

    def __init__(self, Places places):
        cdef Py_ssize_t chunk, first, length, span = 0
        if self.spans != NULL or places.n >= 2**31:
            raise ValueError("a RowOrder is made once, of fewer than 2**31 places")
        self.n, self.lengths = places.n, places.lengths
        self.n_spans = sum([-(-length // SPAN) for length in self.lengths]) + 1
        self.spans = <Span*> zeros((self.n_spans + 1) * sizeof(Span))
        self.rows = <uint16_t*> zeros(self.n * sizeof(uint16_t))
        self.dealt = <uint32_t*> zeros(self.n * sizeof(uint32_t))
        self.slots = <uint16_t*> zeros(self.n * sizeof(uint16_t))
        cdef int64_t[::1] before = np.zeros(len(self.lengths) + 1, np.int64)
        for chunk in range(len(self.lengths)):
            before[chunk], length = span, self.lengths[chunk]
            for first in range(0, length, SPAN):
                self.spans[span].chunk, self.spans[span].first = <int32_t> chunk, <uint32_t> first
                self.spans[span].n = <uint32_t> min(length - first, SPAN)
                span += 1
        cdef uint32_t[::1] ends = np.zeros(max(self.n_spans, self.n // DEAL + 1), np.uint32)
        if self.n:
            with nogil:
                self.sort(&places.places[0], &before[0], &ends[0])
                self.deal_out(&ends[0])

    def __dealloc__(self):
        free(self.spans)
        free(self.rows)
        free(self.dealt)
        free(self.slots)

    cdef inline Py_ssize_t span_of(self, int64_t place, const int64_t* before) noexcept nogil:
        if place < 0:
            return self.n_spans - 1
        return before[place >> 32] + (row_of(place) >> SPAN_BITS)

    cdef void sort(self, const int64_t* at, const int64_t* before, uint32_t* ends) noexcept nogil:
        """Labels to their spans, by counting."""
        cdef Py_ssize_t i, span
        for i in range(self.n):
            ends[self.span_of(at[i], before)] += 1
        for span in range(self.n_spans):
            self.spans[span + 1].pick = self.spans[span].pick + ends[span]
            ends[span] = self.spans[span].pick
        for i in range(self.n):
            span = self.span_of(at[i], before)
            self.dealt[ends[span]] = <uint32_t> i
            self.rows[ends[span]] = <uint16_t> (row_of(at[i]) & (SPAN - 1) if at[i] >= 0 else 0)
            ends[span] += 1

    cdef void deal_out(self, uint32_t* ends) noexcept nogil:
        """Each pick to the next slot of its label's deal."""
        cdef Py_ssize_t k, deal
        cdef uint32_t label, to
        for deal in range(self.n // DEAL + 1):
            ends[deal] = <uint32_t> (deal * DEAL)
        for k in range(self.n):
            label = self.dealt[k]
            to = ends[label >> DEAL_BITS]
            ends[label >> DEAL_BITS] = to + 1
            self.dealt[k] = to
            self.slots[label] = <uint16_t> (to & (DEAL - 1))

    def pick(self, Source source, uint8_t[::1] dealt):
        """Read a column and deal its values out; zeros for none."""
        cdef Py_ssize_t width = source.width
        self.check(width, len(dealt))
        if source.lengths != self.lengths or source.varying:
            raise ValueError("places in chunks of other lengths, or no values")
        if not self.n:
            return
        with nogil:
            if width == 8:
                pick_words(self, source.chunks, 8, <char*> &dealt[0])
            elif width == 4:
                pick_words(self, source.chunks, 4, <char*> &dealt[0])
            elif width == 2:
                pick_words(self, source.chunks, 2, <char*> &dealt[0])
            else:
                pick_words(self, source.chunks, 1, <char*> &dealt[0])

    def values(
        self, Py_ssize_t width, const uint8_t[::1] dealt, Py_ssize_t start, Py_ssize_t stop, uint8_t[::1] out
    ):
        """Write the values of labels start … stop - 1 one after the other."""
        self.check(width, len(dealt))
        if not 0 <= start <= stop <= self.n or len(out) < (stop - start) * width:
            raise ValueError(f"{len(out)} bytes for values {start} to {stop} of {self.n}")
        if start == stop:
            return
        with nogil:
            if width == 8:
                take_dealt(self.slots, <const char*> &dealt[0], start, stop, 8, <char*> &out[0])
            elif width == 4:
                take_dealt(self.slots, <const char*> &dealt[0], start, stop, 4, <char*> &out[0])
            elif width == 2:
                take_dealt(self.slots, <const char*> &dealt[0], start, stop, 2, <char*> &out[0])
            else:
                take_dealt(self.slots, <const char*> &dealt[0], start, stop, 1, <char*> &out[0])

    cdef int check(self, Py_ssize_t width, Py_ssize_t size) except -1:
        if width not in (1, 2, 4, 8) or size < self.n * width:
            raise ValueError(f"{size} bytes for {self.n} values of {width}")
        return 0


cdef inline void pick_words(
    RowOrder order, const Chunk* chunks, Py_ssize_t width, char* dealt
) noexcept nogil:
    """Called with a width that the compiler knows, as take_words."""
    cdef Py_ssize_t number, k
    cdef const Span* span
    cdef const char* data
    cdef const uint32_t* to = order.dealt
    cdef const uint16_t* rows = order.rows
    for number in range(order.n_spans):
        span, data = &order.spans[number], NOTHING
        if span.n:
            data = chunks[span.chunk].data + span.first * width
        # Memory that is read from beginning to end comes several times as fast as a line here and there.
        if (span[1].pick - span.pick) * DENSE * LINE >= span.n * width:
            read_through(data, span.n * width)
        for k in range(span.pick, span[1].pick):
            memcpy(dealt + to[k] * width, data + rows[k] * width, width)


cdef inline void take_dealt(
    const uint16_t* slots, const char* dealt, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t width, char* out
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(start, stop):
        memcpy(out + (i - start) * width, dealt + ((i & ~(DEAL - 1)) + slots[i]) * width, width)
