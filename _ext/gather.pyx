"""Values of chosen rows out of the chunks of a column; materializer/pit/gather_py.py is the twin.

A place is ``chunk << 32 | row``, or -1 for none, which becomes a null:

    chunks   [a b c] [d e]        places   0:1  1:0  -1  0:1        ->  b d ∅ b

Rows lie anywhere, so each value is a miss of every cache: it is asked for `AHEAD` values before it is needed.
Places are checked once, when they are wrapped; from then on they are trusted.
"""

cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from arrow cimport ArrowArray, bit

import numpy as np

cdef extern from * nogil:
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    AHEAD = 24                 # values
    ZEROS = 64                 # bytes that stand in for a value of none, where that is no longer

cdef char[ZEROS] NOTHING
memset(NOTHING, 0, ZEROS)


cdef struct Chunk:
    const uint8_t* present     # NULL: all are
    int64_t offset             # of the array, for bits
    const char* data           # values: of value 0; bits and bytes: from the start
    const int32_t* ends        # of bytes or items; value i is ends[i] to ends[i + 1]


cdef inline int64_t row_of(int64_t place) noexcept nogil:
    return <uint32_t> place


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


cdef inline const char* value_at(const Chunk* chunks, int64_t place, Py_ssize_t width) noexcept nogil:
    if place < 0:
        return NOTHING
    return chunks[place >> 32].data + row_of(place) * width


cdef inline void take_words(
    const Chunk* chunks, const int64_t* at, Py_ssize_t n, Py_ssize_t width, char* out
) noexcept nogil:
    """Called with a width that the compiler knows: a copy is one move then."""
    cdef Py_ssize_t i
    for i in range(n):
        if i + AHEAD < n:
            __builtin_prefetch(value_at(chunks, at[i + AHEAD], width), 0, 0)
        memcpy(out + width * i, value_at(chunks, at[i], width), width)


cdef void take_any(
    const Chunk* chunks, const int64_t* at, Py_ssize_t n, Py_ssize_t width, char* out
) noexcept nogil:
    cdef Py_ssize_t i, k
    cdef const char* value
    for i in range(n):
        if i + AHEAD < n and at[i + AHEAD] >= 0:
            value = value_at(chunks, at[i + AHEAD], width)
            for k in range(min((width + 63) // 64, <Py_ssize_t> 8)):
                __builtin_prefetch(value + 64 * k, 0, 0)
        if at[i] < 0:
            memset(out + i * width, 0, width)
        else:
            memcpy(out + i * width, value_at(chunks, at[i], width), width)


cdef void take_bits(const Chunk* chunks, const int64_t* at, Py_ssize_t n, uint8_t* out) noexcept nogil:
    cdef Py_ssize_t i
    cdef const Chunk* chunk
    for i in range(n):
        if i + AHEAD < n and at[i + AHEAD] >= 0:
            chunk = &chunks[at[i + AHEAD] >> 32]
            __builtin_prefetch(chunk.data + ((chunk.offset + row_of(at[i + AHEAD])) >> 3), 0, 0)
        if at[i] >= 0:
            chunk = &chunks[at[i] >> 32]
            out[i >> 3] |= <uint8_t> (
                bit(<const uint8_t*> chunk.data, chunk.offset + row_of(at[i])) << (i & 7))
