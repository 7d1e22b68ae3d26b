# The values of an output, one after the other, until they become an Arrow array; header only.

from libc.stdint cimport int32_t, int64_t

from buffers cimport Buffer, put, reserve
from tile_finals cimport Final
from tile_values cimport Value, is_heap, width_of, word_of


cdef enum:
    END_MAX = 0x7FFFFFFF


cdef struct Made:           # the values of an output
    int dtype               # of a value or an item
    bint is_list
    Buffer present          # a byte each
    Buffer data
    Buffer ends             # int32, of heap values and of lists
    Buffer item_ends        # int32, of lists of heap values
    int32_t n_items


cdef inline int open_made(Made* made, Py_ssize_t n) except -1:
    """For so many values; what is larger than that grows."""
    reserve(&made.present, n)
    if not made.is_list and not is_heap(made.dtype):
        reserve(&made.data, n * width_of(made.dtype))
    return 0


cdef inline int put_final(Made* made, const Final* value) except -1 nogil:
    """Append a value."""
    cdef char present = value.present
    cdef int64_t i
    put(&made.present, &present, 1)
    if made.is_list:
        for i in range(value.count - 1, -1, -1):
            put_item(made, &value.items[i].value)
        put(&made.ends, <char*> &made.n_items, 4)
    elif is_heap(made.dtype):
        if value.present and value.text != NULL and value.text.size:
            put(&made.data, value.text.data, value.text.size)
        put_end(&made.ends, made.data.size)
    elif width_of(made.dtype) == 8:             # a size that the compiler knows is no call
        put(&made.data, <const char*> &value.word, 8)
    else:
        put(&made.data, <const char*> &value.word, width_of(made.dtype))
    return 0


cdef inline int put_item(Made* made, const Value* value) except -1 nogil:
    """Append an item of a list."""
    cdef int64_t word
    if is_heap(made.dtype):
        if value.size:
            put(&made.data, value.data, value.size)
        put_end(&made.item_ends, made.data.size)
    else:
        word = <int64_t> word_of(made.dtype, value.key)
        put(&made.data, <char*> &word, width_of(made.dtype))
    made.n_items += 1
    return 0


cdef inline int put_end(Buffer* ends, Py_ssize_t size) except -1 nogil:
    cdef int32_t end = <int32_t> size
    if size > END_MAX:
        raise OverflowError("the values of a feature are more than 2 GiB")
    put(ends, <char*> &end, 4)
    return 0
