# Arrow memory, read through the C data interface, and what a row takes of it. Header only.
# https://arrow.apache.org/docs/format/CDataInterface.html

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from buffers cimport store32


cdef extern from * nogil:
    """
    #ifndef ARROW_C_DATA_INTERFACE
    #define ARROW_C_DATA_INTERFACE
    struct ArrowArray {
        int64_t length, null_count, offset, n_buffers, n_children;
        const void** buffers;
        struct ArrowArray** children;
        struct ArrowArray* dictionary;
        void (*release)(struct ArrowArray*);
        void* private_data;
    };
    #endif
    """
    struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        const void** buffers
        ArrowArray** children


cdef enum Kind:  # of a field, as in codec/decoded.py
    FIXED = 0
    BLOB = 1
    ITEMS = 2
    BLOBS = 3


cdef inline bint bit(const uint8_t* bits, int64_t i) noexcept nogil:
    return bits[i >> 3] >> (i & 7) & 1


# One field's Arrow memory. Offsets into arrays are added when a pointer is taken, except for bits
# and for fixed lists, where they are counted in values and items.
cdef struct Column:
    int kind
    bint boolean                  # the (item) values are bits
    Py_ssize_t width              # FIXED: bytes in the row; ITEMS: bytes of an item
    Py_ssize_t length             # items of a fixed list, else 0
    Py_ssize_t place              # FIXED: row offset; else its number among the heap fields
    const uint8_t* present        # NULL: all are
    int64_t offset                # of the array
    const int32_t* ends           # BLOB: bytes, lists: items; value i is ends[i] to ends[i + 1]
    const char* data              # values, items or bytes
    int64_t item_offset           # of the items' array
    const uint8_t* item_present   # NULL: all are
    const int32_t* item_ends      # BLOBS


cdef inline void attach(Column* column, const ArrowArray* array) noexcept nogil:
    """Point a Column at its Arrow array, whose type has been checked."""
    cdef const ArrowArray* items
    column.offset = array.offset
    column.present = NULL
    if array.null_count:
        column.present = <const uint8_t*> array.buffers[0]
    if column.kind == BLOB or (column.kind != FIXED and not column.length):
        column.ends = <const int32_t*> array.buffers[1] + array.offset
    if column.kind == BLOB:
        column.data = <const char*> array.buffers[2]
    elif column.kind == FIXED and not column.length:
        column.data = <const char*> array.buffers[1]
    else:
        items = array.children[0]
        column.item_offset = items.offset
        column.item_present = NULL
        if items.null_count:
            column.item_present = <const uint8_t*> items.buffers[0]
        if column.kind == BLOBS:
            column.item_ends = <const int32_t*> items.buffers[1] + items.offset
            column.data = <const char*> items.buffers[2]
        else:
            column.data = <const char*> items.buffers[1]


cdef inline void item_range(Column* c, int64_t i, int64_t* first, int64_t* count) noexcept nogil:
    """The items of list i; the first without the item array's own offset."""
    if c.length:
        first[0] = (c.offset + i) * c.length
        count[0] = c.length
    else:
        first[0] = c.ends[i]
        count[0] = c.ends[i + 1] - first[0]


cdef inline bint items_present(Column* c, int64_t i) noexcept nogil:
    cdef int64_t first, count, j
    if c.item_present != NULL:
        item_range(c, i, &first, &count)
        for j in range(first, first + count):
            if not bit(c.item_present, c.item_offset + j):
                return False
    return True


cdef inline int64_t heap_size(Column* c, int64_t i) noexcept nogil:
    cdef int64_t first, count
    if c.kind == BLOB:
        return c.ends[i + 1] - c.ends[i]
    item_range(c, i, &first, &count)
    if c.kind == ITEMS:
        return count * c.width
    return 4 + 4 * count + c.item_ends[first + count] - c.item_ends[first]


cdef inline void copy_values(
    Column* c, int64_t first, int64_t count, Py_ssize_t width, char* out
) noexcept nogil:
    """count values of fixed width, from the values' or items' array."""
    cdef int64_t j
    if c.boolean:
        for j in range(count):
            out[j] = bit(<const uint8_t*> c.data, first + j)
    elif count:
        memcpy(out, c.data + first * width, count * width)


cdef inline void write_fixed(Column* c, int64_t i, char* out) noexcept nogil:
    if c.length:
        copy_values(
            c, c.item_offset + (c.offset + i) * c.length, c.length, c.width // c.length, out
        )
    elif c.width == 4:      # sizes that the compiler knows are a move, not a call
        memcpy(out, c.data + 4 * (c.offset + i), 4)
    elif c.width == 8:
        memcpy(out, c.data + 8 * (c.offset + i), 8)
    else:
        copy_values(c, c.offset + i, 1, c.width, out)


cdef inline void write_heap(Column* c, int64_t i, char* out, int64_t size) noexcept nogil:
    cdef int64_t first, count, j
    if c.kind == BLOB:
        if size:
            memcpy(out, c.data + c.ends[i], size)
        return
    item_range(c, i, &first, &count)
    if c.kind == ITEMS:
        copy_values(c, c.item_offset + first, count, c.width, out)
        return
    store32(out, <uint32_t> count)
    for j in range(count):
        store32(out + 4 + 4 * j, <uint32_t> (c.item_ends[first + j + 1] - c.item_ends[first]))
    if size > 4 + 4 * count:
        memcpy(out + 4 + 4 * count, c.data + c.item_ends[first], size - 4 - 4 * count)
