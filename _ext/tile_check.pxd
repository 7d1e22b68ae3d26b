# Is this a row of tiles of this key? Header only; TileCodec.refused of aggregations/tile_rows_py.py words what is wrong.

from libc.stdint cimport int64_t, uint16_t

from buffers cimport load32, load_stamp
from crc32c cimport row_crc
from read_batch cimport CACHED, Batch, Row, key_at, key_size
from row_check cimport HEADER, layout_of

cdef enum:
    TILE_VERSION = 2


cdef inline bint is_tile_row(const Batch* batch, Py_ssize_t i, uint16_t layout_id) noexcept nogil:
    """Whether row i, which is FOUND, has the header and the checksum of one of this layout."""
    cdef const Row* row = &batch.rows[i]
    if row.size < HEADER or row.data[0] != TILE_VERSION or row.data[1] or layout_of(row.data) != layout_id:
        return False
    if row.flags & CACHED:  # the cache takes only rows that were looked at
        return True
    return load32(row.data + 4) == row_crc(key_at(batch, i), key_size(batch, i), row.data, row.size)


cdef inline bint newest_fits(const char* row) noexcept nogil:
    """Whether its newest event is near enough to 1970 for the arithmetic of tiles."""
    cdef int64_t newest = load_stamp(row + 8)
    return -(<int64_t> 1 << 61) <= newest <= <int64_t> 1 << 61
