# A growing byte buffer for the writers of this folder; header only, each module compiles its own copy.

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef struct Buffer:
    char* data
    Py_ssize_t size
    Py_ssize_t capacity


cdef inline int reserve(Buffer* out, Py_ssize_t extra) except -1:
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


cdef inline int put(Buffer* out, const char* data, Py_ssize_t size) except -1:
    reserve(out, size)
    memcpy(out.data + out.size, data, size)
    out.size += size
    return 0


cdef inline void release(Buffer* out) noexcept:
    free(out.data)
    out.data = NULL
    out.size = out.capacity = 0
