# Along the tiles of a row, one at a time, and into a row that is made of such; header only.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp, memcpy

from buffers cimport Buffer, reserve, store32, store_stamp
from crc32c cimport row_crc
from read_batch cimport Batch, Row, key_at, key_size, owned_bytes, set_row
from row_check cimport HEADER
from tile_bytes cimport take_index
from tile_check cimport TILE_VERSION
from tile_program cimport Level
from varint cimport Reader, put_signed, put_unsigned, take_unsigned


# The tiles of a level, one at a time.
cdef struct Walk:
    Reader data
    uint64_t left       # tiles that are not read yet, with the one at hand
    int64_t index       # of the tile at hand

# The tiles of a level that is made, so far.
cdef struct Made:
    uint64_t count
    int64_t last


cdef inline bint same_keys(const Batch* one, const Batch* other) noexcept nogil:
    """Whether two batches have the same keys in the same order."""
    cdef Py_ssize_t i
    if one.n != other.n or one.text.size != other.text.size:
        return False
    for i in range(one.n):
        if one.keys[i].end != other.keys[i].end:
            return False
    return one.text.size == 0 or memcmp(one.text.data, other.text.data, one.text.size) == 0


cdef inline void begin_row(Walk* walk, const Row* row) noexcept nogil:
    """At the tiles of a row of 24 bytes or more; of none if it is NULL."""
    walk.data.at = walk.data.end = NULL
    walk.left, walk.index = 0, 0
    if row != NULL:
        walk.data.at = <const uint8_t*> row.data + HEADER
        walk.data.end = <const uint8_t*> row.data + row.size


cdef inline bint begin(Walk* walk, const Level* level) noexcept nogil:
    """At the first tile of a level; whether the bytes go on so."""
    if not take_unsigned(&walk.data, &walk.left, 0):
        return False
    return not walk.left or take_index(&walk.data, level, True, &walk.index)


cdef inline bint advance(Walk* walk, const Level* level) noexcept nogil:
    """The tile at hand was read: on to the next one, if there is one."""
    walk.left -= 1
    return not walk.left or take_index(&walk.data, level, False, &walk.index)


cdef inline int put_index(Buffer* tiles, Made* made, int64_t index) except -1 nogil:
    """A tile begins."""
    reserve(tiles, 10)
    if made.count:
        put_unsigned(tiles, index - made.last)
    else:
        put_signed(tiles, index)
    made.count += 1
    made.last = index
    return 0


cdef inline void seal_row(
    Batch* to, Py_ssize_t i, char* row, Py_ssize_t size, uint16_t layout_id, int64_t newest, int64_t created
) noexcept nogil:
    """The row of key i, which the batch owns, of less than 4 GiB: its head is filled in."""
    row[0], row[1] = TILE_VERSION, 0
    memcpy(row + 2, &layout_id, 2)
    store_stamp(row + 8, newest)
    store_stamp(row + 16, created)
    store32(row + 4, row_crc(key_at(to, i), key_size(to, i), row, size))
    set_row(to, i, row, size, 0, 0)


cdef inline int set_tile_row(
    Batch* to, Py_ssize_t i, const Buffer* made, uint16_t layout_id, int64_t newest, int64_t created
) except -1 nogil:
    """The row of key i: room for a head and the tiles, of less than 4 GiB."""
    cdef char* row = owned_bytes(to, made.size)
    memcpy(row, made.data, made.size)
    seal_row(to, i, row, made.size, layout_id, newest, created)
    return 0
