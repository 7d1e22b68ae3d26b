# Is this a row of this key? Header only; codec/decoded.py words what is wrong.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint8_t
from libc.string cimport memcpy

from buffers cimport load32
from crc32c cimport row_crc
from read_batch cimport CACHED, Batch, Row, key_at, key_size

cdef enum:
    HEADER = 24
    VERSION = 1

cdef enum Wrong:
    NOTHING = 0
    CUT = 1
    FORMAT = 2
    TORN = 3


cdef inline uint16_t layout_of(const char* row) noexcept nogil:
    cdef uint16_t layout_id
    memcpy(&layout_id, row + 2, 2)
    return layout_id


cdef inline Wrong wrong_row(const Batch* batch, Py_ssize_t i) noexcept nogil:
    """What is wrong with the header or the checksum of row i, which is FOUND."""
    cdef const Row* row = &batch.rows[i]
    if row.size < HEADER:
        return CUT
    if row.data[0] != VERSION or row.data[1]:
        return FORMAT
    if row.flags & CACHED:  # the cache takes only rows that were looked at
        return NOTHING
    if load32(row.data + 4) != row_crc(key_at(batch, i), key_size(batch, i), row.data, row.size):
        return TORN
    return NOTHING


cdef inline bint heap_fits(
    const char* row, Py_ssize_t size, Py_ssize_t ends_start, Py_ssize_t n_heap, Py_ssize_t heap_start
) noexcept nogil:
    """Whether the row reaches to its heap, and the heap's ends rise to the row's end."""
    cdef Py_ssize_t slot
    cdef uint32_t end = 0, last = 0
    if size < heap_start:
        return False
    for slot in range(n_heap):
        end = load32(row + ends_start + 4 * slot)
        if end < last:
            return False
        last = end
    return heap_start + <int64_t> last == size
