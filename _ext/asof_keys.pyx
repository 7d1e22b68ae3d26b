"""Keys of labels as small numbers, and which of them rows have; materializer/pit/asof_py.py is the twin.

Of `text_hashes`, by which keys are dealt out to shards, it is fastserve/hashes/texts_py.py.

A KeyTable is filled with the keys of all labels once, and then asked for those of rows, by many threads:

    add    label keys  b a a ∅ c    ->  codes  0 1 1 -1 2
    find   row keys    c ? a        ->  codes  2 -1 1          -1: no label has it, or null

Integers that lie close together are their own codes, less the smallest. Others are hashed into open
addressing; bytes are compared whole, so equal hashes do no harm. A block of keys is hashed and its entries
are fetched before the first of them is looked at.
"""

cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from arrow cimport ArrowArray, bit
from buffers cimport Buffer, put, release
from hashing cimport fs_hash

import numpy as np
import pyarrow as pa

cdef extern from * nogil:
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    BLOCK = 64                 # keys on their way from memory at a time
    SMALLEST = 1024            # entries
    EMPTY = -1
    NEAR = 65536               # so many codes that no label has are always cheap

cdef uint64_t MIX = 0x9E3779B97F4A7C15U
cdef Py_ssize_t MOST = 2**31 - 1


cdef struct Entry:
    uint64_t key               # an integer, or the hash of bytes
    int32_t code               # EMPTY: none


cdef struct Keys:              # of one Arrow array
    const uint8_t* present     # NULL: all are
    int64_t offset
    const int64_t* values      # integers, or where bytes end; the array's offset is added
    const char* data           # bytes


cdef inline uint64_t mixed(uint64_t word) noexcept nogil:
    word = (word ^ word >> 32) * MIX
    return word ^ word >> 29


cdef inline uint64_t word_at(const char* data) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, data, 8)
    return word


cdef inline uint64_t short_word(const char* data, int64_t size) noexcept nogil:
    """All of up to 7 bytes in one word."""
    cdef uint32_t low = 0, high = 0
    cdef uint64_t word = 0
    cdef int64_t i
    if size >= 4:
        memcpy(&low, data, 4)
        memcpy(&high, data + size - 4, 4)
        return <uint64_t> high << 32 | low
    for i in range(size):
        word = word << 8 | <uint8_t> data[i]
    return word


cdef inline bint same(const char* a, const char* b, int64_t size) noexcept nogil:
    cdef int64_t at = 0
    if size < 8:
        return short_word(a, size) == short_word(b, size)
    while at + 8 < size:
        if word_at(a + at) != word_at(b + at):
            return False
        at += 8
    return word_at(a + size - 8) == word_at(b + size - 8)


cdef inline bint is_present(const Keys* keys, int64_t i) noexcept nogil:
    return keys.present == NULL or bit(keys.present, keys.offset + i)


cdef object point_at(array, bint text, Keys* keys):
    """Point at an array's memory; what is returned keeps it alive."""
    cdef const ArrowArray* memory
    allowed = (pa.large_string(), pa.large_binary()) if text else (pa.int64(),)
    if array.type not in allowed:
        raise TypeError(f"keys are {array.type}, not {' or '.join(map(str, allowed))}")
    _, held = array.__arrow_c_array__()
    memory = <const ArrowArray*> PyCapsule_GetPointer(held, "arrow_array")
    keys.offset = memory.offset
    keys.present = <const uint8_t*> memory.buffers[0] if memory.null_count else NULL
    keys.values = <const int64_t*> memory.buffers[1] + memory.offset if memory.length else NULL
    keys.data = <const char*> memory.buffers[2] if text else NULL
    return held


def text_hashes(array):
    """See fastserve/hashes/texts_py.py."""
    cdef Keys keys
    cdef Py_ssize_t i, n = len(array)
    _held = point_at(array, True, &keys)
    hashes = np.empty(n, np.uint64)
    cdef uint64_t[::1] out = hashes
    with nogil:
        for i in range(n):
            out[i] = fs_hash(0, keys.data + keys.values[i], keys.values[i + 1] - keys.values[i])
    return hashes


@cython.final
cdef class KeyTable:
    """See the module's docstring.

    Args:
        text: whether keys are bytes, as large_string or large_binary; otherwise int64.
    """

    cdef readonly bint text
    cdef readonly Py_ssize_t n_codes
    cdef bint direct, filled
    cdef uint64_t lowest, width      # direct: keys lowest … lowest + width - 1
    cdef Entry* entries
    cdef uint64_t mask
    cdef Buffer held                 # the bytes of the keys, in the order of codes
    cdef int64_t* ends               # code c is held[ends[c] … ends[c + 1]]
    cdef Py_ssize_t room             # codes that `ends` has room for

    def __cinit__(self, bint text):
        self.text = text
        memset(&self.held, 0, sizeof(Buffer))

    def __dealloc__(self):
        free(self.entries)
        free(self.ends)
        release(&self.held)

    def add(self, array):
        """Codes of the labels' keys: int32[n]. Once for a table."""
        cdef Keys keys
        cdef Py_ssize_t first = 0, n = len(array)
        if self.filled:
            raise ValueError("a KeyTable is filled once")
        if n > MOST:
            raise ValueError(f"{n:,} labels; at most {MOST:,} at a time")
        self.filled = True
        _held = point_at(array, self.text, &keys)
        codes = np.empty(n, np.int32)
        cdef int32_t[::1] out = codes
        if not self.text:
            self.choose(&keys, n)
        if self.direct:
            self.find_direct(&keys, 0, n, &out[0] if n else NULL)
            return codes
        self.resize(SMALLEST)
        if self.text:
            self.make_room(1)
            self.ends[0] = 0
        while first < n:
            self.add_block(&keys, first, min(first + BLOCK, n), &out[0])
            first += BLOCK
        return codes

    def find(self, array, out=None):
        """Codes of the rows' keys: int32[n]; in `out`, where that is given and has room."""
        cdef Keys keys
        cdef Py_ssize_t first = 0, n = len(array)
        if not self.filled:
            raise ValueError("a KeyTable is filled first")
        _held = point_at(array, self.text, &keys)
        codes = np.empty(n, np.int32) if out is None or len(out) < n else out[:n]
        if not n:
            return codes
        cdef int32_t[::1] view = codes
        with nogil:
            if self.direct:
                self.find_direct(&keys, 0, n, &view[0])
                first = n
            while first < n:
                if self.text:
                    self.find_bytes(&keys, first, min(first + BLOCK, n), &view[0])
                else:
                    self.find_ints(&keys, first, min(first + BLOCK, n), &view[0])
                first += BLOCK
        return codes

    cdef void choose(self, const Keys* keys, Py_ssize_t n) noexcept:
        """Direct, if all keys lie within a range not much longer than they are many."""
        cdef int64_t low = 0, high = -1, key
        cdef bint any_key = False
        cdef Py_ssize_t i
        for i in range(n):
            if is_present(keys, i):
                key = keys.values[i]
                if not any_key or key < low:
                    low = key
                if not any_key or key > high:
                    high = key
                any_key = True
        self.lowest = <uint64_t> low
        self.width = <uint64_t> high - <uint64_t> low + 1 if any_key else 0
        self.direct = not any_key or self.width - 1 < <uint64_t> (4 * n + NEAR)
        if self.width - 1 >= <uint64_t> MOST and any_key:
            self.direct = False
        if self.direct:
            self.n_codes = <Py_ssize_t> self.width

    cdef void find_direct(
        self, const Keys* keys, Py_ssize_t first, Py_ssize_t stop, int32_t* out
    ) noexcept nogil:
        cdef Py_ssize_t i
        cdef uint64_t code
        for i in range(first, stop):
            code = <uint64_t> keys.values[i] - self.lowest
            out[i] = <int32_t> code if code < self.width else EMPTY
        if keys.present != NULL:
            for i in range(first, stop):
                if not bit(keys.present, keys.offset + i):
                    out[i] = EMPTY

    cdef int resize(self, uint64_t size) except -1:
        """Room for half as many keys as `size`, a power of two; those that are there move."""
        cdef Entry* old = self.entries
        cdef uint64_t i, at, olds = self.mask + 1 if old != NULL else 0
        cdef Entry* made = <Entry*> malloc(size * sizeof(Entry))
        if made == NULL:
            raise MemoryError
        memset(made, 0xFF, size * sizeof(Entry))       # every code EMPTY
        for i in range(olds):
            if old[i].code != EMPTY:
                at = (old[i].key if self.text else mixed(old[i].key)) & (size - 1)
                while made[at].code != EMPTY:
                    at = (at + 1) & (size - 1)
                made[at] = old[i]
        self.entries, self.mask = made, size - 1
        free(old)
        return 0

    cdef int make_room(self, Py_ssize_t codes) except -1:
        """For the ends of so many keys."""
        cdef int64_t* made
        if codes + 1 > self.room:
            made = <int64_t*> realloc(self.ends, (2 * codes + SMALLEST) * sizeof(int64_t))
            if made == NULL:
                raise MemoryError
            self.ends, self.room = made, 2 * codes + SMALLEST
        return 0

    cdef int add_block(self, const Keys* keys, Py_ssize_t first, Py_ssize_t stop, int32_t* out) except -1:
        cdef uint64_t[BLOCK] hashes
        cdef Py_ssize_t i
        while 2 * <uint64_t> (self.n_codes + BLOCK) > self.mask:
            self.resize(2 * (self.mask + 1))
        if self.text:
            self.make_room(self.n_codes + BLOCK)
        self.fetch(keys, first, stop, hashes)
        for i in range(first, stop):
            out[i] = self.add_one(keys, i, hashes[i - first]) if is_present(keys, i) else EMPTY
        return 0

    cdef int32_t add_one(self, const Keys* keys, Py_ssize_t i, uint64_t h) except -2:
        cdef uint64_t key = h if self.text else <uint64_t> keys.values[i]
        cdef uint64_t at = h & self.mask
        cdef Entry* entry
        while True:
            entry = &self.entries[at]
            if entry.code == EMPTY:
                break
            if entry.key == key and (not self.text or self.is_held(entry.code, keys, i)):
                return entry.code
            at = (at + 1) & self.mask
        entry.key, entry.code = key, <int32_t> self.n_codes
        if self.text:
            if keys.values[i + 1] > keys.values[i]:
                put(&self.held, keys.data + keys.values[i], keys.values[i + 1] - keys.values[i])
            self.ends[self.n_codes + 1] = self.held.size
        self.n_codes += 1
        return entry.code

    cdef inline bint is_held(self, int32_t code, const Keys* keys, Py_ssize_t i) noexcept nogil:
        """Whether the key of that code is these bytes."""
        cdef int64_t start = self.ends[code], size = self.ends[code + 1] - start
        if size != keys.values[i + 1] - keys.values[i]:
            return False
        return same(self.held.data + start, keys.data + keys.values[i], size)

    cdef inline void fetch(
        self, const Keys* keys, Py_ssize_t first, Py_ssize_t stop, uint64_t* hashes
    ) noexcept nogil:
        """Hashes of a block; their entries are on their way."""
        cdef Py_ssize_t i
        cdef uint64_t h
        for i in range(first, stop):
            if self.text:
                h = fs_hash(0, keys.data + keys.values[i], keys.values[i + 1] - keys.values[i])
            else:
                h = mixed(<uint64_t> keys.values[i])
            hashes[i - first] = h
            __builtin_prefetch(&self.entries[h & self.mask], 0, 3)

    cdef void find_ints(
        self, const Keys* keys, Py_ssize_t first, Py_ssize_t stop, int32_t* out
    ) noexcept nogil:
        cdef uint64_t[BLOCK] hashes
        cdef Py_ssize_t i
        cdef uint64_t at, key
        self.fetch(keys, first, stop, hashes)
        for i in range(first, stop):
            key, at = <uint64_t> keys.values[i], hashes[i - first] & self.mask
            while self.entries[at].code != EMPTY and self.entries[at].key != key:
                at = (at + 1) & self.mask
            out[i] = self.entries[at].code if is_present(keys, i) else EMPTY

    cdef void find_bytes(
        self, const Keys* keys, Py_ssize_t first, Py_ssize_t stop, int32_t* out
    ) noexcept nogil:
        """As above, and the bytes of each key that may be it are fetched too before they are compared."""
        cdef uint64_t[BLOCK] hashes
        cdef uint64_t[BLOCK] places
        cdef Py_ssize_t i
        cdef uint64_t at, h
        self.fetch(keys, first, stop, hashes)
        for i in range(first, stop):
            h = hashes[i - first]
            at = h & self.mask
            while self.entries[at].code != EMPTY and self.entries[at].key != h:
                at = (at + 1) & self.mask
            places[i - first] = at
            if self.entries[at].code != EMPTY:
                __builtin_prefetch(&self.ends[self.entries[at].code], 0, 3)
        for i in range(first, stop):
            at = places[i - first]
            if self.entries[at].code != EMPTY:
                __builtin_prefetch(self.held.data + self.ends[self.entries[at].code], 0, 3)
        for i in range(first, stop):
            at = places[i - first]
            while self.entries[at].code != EMPTY and not (
                self.entries[at].key == hashes[i - first] and self.is_held(self.entries[at].code, keys, i)
            ):
                at = (at + 1) & self.mask
            out[i] = self.entries[at].code if is_present(keys, i) else EMPTY
