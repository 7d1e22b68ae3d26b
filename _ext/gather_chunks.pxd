# Chunks of a column, and how values are taken from them one after the other; header only.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from arrow cimport bit

cdef extern from * nogil:
    """
    static const char fs_nothing[64];
    /* In steps that are small enough for the hardware to run ahead: of whole lines it would not. */
    static void fs_read_through(const char* data, size_t size) {
        for (size_t i = 0; i < size; i += 16) (void)*(const volatile char*)(data + i);
    }
    """
    const char* NOTHING "fs_nothing"   # stands in for a value of none, where that is no longer than 64 bytes
    void __builtin_prefetch(const void* address, int write, int locality)
    void read_through "fs_read_through"(const char* data, size_t size)

cdef enum:
    AHEAD = 24                 # values


cdef struct Chunk:
    const uint8_t* present     # NULL: all are
    int64_t offset             # of the array, for bits
    const char* data           # values: of value 0; bits and bytes: from the start
    const int32_t* ends        # of bytes or items; value i is ends[i] to ends[i + 1]


cdef inline int64_t row_of(int64_t place) noexcept nogil:
    return <uint32_t> place


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


cdef inline void take_any(
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


cdef inline void take_bits(
    const Chunk* chunks, const int64_t* at, Py_ssize_t n, uint8_t* out
) noexcept nogil:
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
