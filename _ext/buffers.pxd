# Bytes: a growing buffer, numbers in rows. Header only: each module compiles its own copy.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef extern from * nogil:
    """
    #include <stdlib.h>
    #include <sys/mman.h>
    #ifndef FS_LARGE
    #define FS_LARGE ((size_t) 1 << 21)
    /* From FS_LARGE on in whole pages of 2 MB, where the system has such: many times fewer faults to touch it all. */
    static inline void *fs_large_room(size_t size) {
        void *room;
        if (size < FS_LARGE) return malloc(size ? size : 1);
        size = (size + FS_LARGE - 1) & ~(FS_LARGE - 1);
        room = aligned_alloc(FS_LARGE, size);
    #ifdef MADV_HUGEPAGE
        if (room) madvise(room, size, MADV_HUGEPAGE);
    #endif
        return room;
    }
    #endif
    """
    uint64_t __builtin_bswap64(uint64_t value)
    void* fs_large_room(size_t size)


cdef struct Buffer:
    char* data
    Py_ssize_t size
    Py_ssize_t capacity


cdef inline int reserve(Buffer* out, Py_ssize_t extra) except -1 nogil:
    """Make room for `extra` bytes after size; what follows may then write without a check."""
    cdef Py_ssize_t wanted = out.size + extra
    cdef char* data
    if wanted <= out.capacity:
        return 0
    wanted = wanted * 2 if wanted > 128 else 256
    data = <char*> realloc(out.data, wanted)
    if data == NULL:
        raise MemoryError
    out.data = data
    out.capacity = wanted
    return 0


cdef inline int put(Buffer* out, const char* data, Py_ssize_t size) except -1 nogil:
    reserve(out, size)
    memcpy(out.data + out.size, data, size)
    out.size += size
    return 0


cdef inline void* large_room(size_t size) except NULL nogil:
    """Memory for free(), best where it is large."""
    cdef void* room = fs_large_room(size)
    if room == NULL:
        with gil:
            raise MemoryError
    return room


cdef inline void release(Buffer* out) noexcept:
    free(out.data)
    out.data = NULL
    out.size = out.capacity = 0


# ---- numbers in rows: little-endian, but for the stamps, which compare as bytes ----


cdef inline uint32_t load32(const char* data) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, data, 4)
    return value


cdef inline void store32(char* data, uint32_t value) noexcept nogil:
    memcpy(data, &value, 4)


cdef inline int64_t load_stamp(const char* data) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, data, 8)
    return <int64_t> (__builtin_bswap64(value) ^ (<uint64_t> 1 << 63))


cdef inline void store_stamp(char* data, int64_t stamp) noexcept nogil:
    cdef uint64_t value = __builtin_bswap64(<uint64_t> stamp ^ (<uint64_t> 1 << 63))
    memcpy(data, &value, 8)


cdef inline bint is_blob_list(const char* data, Py_ssize_t size, Py_ssize_t length) noexcept nogil:
    """Whether data is u32 count, that many rising u32 ends, and as many bytes as the last one says.

    length is the count wanted, or -1 for any.
    """
    cdef int64_t count, j
    cdef uint32_t last = 0, end
    if size < 4:
        return False
    count = load32(data)
    if 4 + 4 * count > size or (length >= 0 and count != length):
        return False
    for j in range(count):
        end = load32(data + 4 + 4 * j)
        if end < last:
            return False
        last = end
    return 4 + 4 * count + <int64_t> last == size
