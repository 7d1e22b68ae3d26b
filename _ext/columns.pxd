# What a decoder knows of fields, and how values get from rows to columns; header only.

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport INT64_MIN, int64_t, uint8_t
from libc.string cimport memcpy

from arrow cimport FIXED, bit
from read_batch cimport Batch


cdef struct Span:
    const char* data      # NULL for null
    Py_ssize_t size

cdef struct Field:
    int kind
    bint boolean
    Py_ssize_t width      # FIXED: bytes in the row; ITEMS: bytes of an item
    Py_ssize_t length     # of a fixed list, else -1
    Py_ssize_t heap       # its number among the wanted heap fields, or -1
    Py_ssize_t block      # FIXED scalars: the number of the block of their type, or -1
    Py_ssize_t slot       # their row in it
    Span default
    char* target          # FIXED: where entity 0's value goes; set for each batch

cdef struct Source:
    Py_ssize_t bit        # the field's position in the layout, or -1: written before it existed
    Py_ssize_t offset     # FIXED: row offset
    Py_ssize_t slot       # heap: its number among the layout's heap fields

cdef struct Run:          # fields first … first + count - 1: of one width, one after the other in the row
    Py_ssize_t first
    Py_ssize_t count
    Py_ssize_t width      # 4 or 8
    Py_ssize_t bit
    Py_ssize_t offset

cdef struct Answer:       # where a batch is decoded to
    Py_ssize_t n
    int64_t now
    int64_t oldest        # a row counts when its event_ts is larger; ignored unless bounded
    bint bounded
    uint8_t* row_status
    uint8_t* statuses
    uint8_t* valid
    int64_t* event_ts
    int64_t* created_ts
    Span* spans           # [heap fields, n]


# A RowDecoder, for modules that decode to memory of their own: they set every target of a fixed field, then call decode.
# A target's value is written where it is there; of what is null nothing is.
ctypedef int (*Decode)(void*, Answer*, const Batch*, Py_ssize_t, Py_ssize_t) except -1

cdef struct Columnar:
    void* decoder
    Decode decode         # (decoder, to, batch, first key, key after the last)
    Field* fields
    Py_ssize_t n_fields
    Py_ssize_t n_heap


cdef inline Columnar* columnar_of(object decoder) except NULL:
    """Borrowed from a native RowDecoder."""
    return <Columnar*> PyCapsule_GetPointer(decoder.capsule, "fastserve.rows")


cdef inline Py_ssize_t lay_out(Answer* to, const Columnar* read, Py_ssize_t n, char* at) noexcept nogil:
    """The bytes of all that an Answer points to but the targets; where `at` is not NULL, it lies there, aligned to 8."""
    cdef Py_ssize_t spans = read.n_heap * n * <Py_ssize_t> sizeof(Span), cells = read.n_fields * n
    if at != NULL:
        to.n = n
        to.event_ts = <int64_t*> at
        to.created_ts = to.event_ts + n
        to.spans = <Span*> (to.created_ts + n)
        to.row_status = <uint8_t*> to.spans + spans
        to.statuses = to.row_status + n
        to.valid = to.statuses + cells
    return (16 * n + spans + n + 2 * cells + 7) & ~7


cdef inline int set_clock(Answer* to, int64_t now, object ttl_us) except -1:
    """Which rows count at `now`."""
    to.now = now
    to.bounded = ttl_us is not None and now - ttl_us >= INT64_MIN
    to.oldest = now - ttl_us if to.bounded else 0
    return 0


cdef inline void take(
    Field* field, Answer* to, Py_ssize_t i, const char* data, Py_ssize_t size
) noexcept nogil:
    """Copy one value to its column, or note where it is."""
    cdef Py_ssize_t j
    cdef char* out
    if field.kind != FIXED:
        to.spans[field.heap * to.n + i] = Span(data, size)
        return
    out = field.target + i * field.width
    if field.boolean:
        for j in range(size):
            out[j] = data[j] != 0
    elif size == 4:
        memcpy(out, data, 4)
    elif size == 8:
        memcpy(out, data, 8)
    else:
        memcpy(out, data, size)


cdef inline bint all_set(const uint8_t* bits, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """Whether `count` bits from `first` on are 1."""
    cdef Py_ssize_t end = first + count
    while first < end and first & 7:
        if not bit(bits, first):
            return False
        first += 1
    while first + 8 <= end:
        if bits[first >> 3] != 0xFF:
            return False
        first += 8
    while first < end:
        if not bit(bits, first):
            return False
        first += 1
    return True


cdef inline void copy_run(
    const Run* run, const char** rows, const Py_ssize_t* places, Py_ssize_t m, const Field* fields
) noexcept nogil:
    """The run of m rows to its columns: column by column. `fields` are the run's own."""
    cdef Py_ssize_t c, r, offset = run.offset
    cdef char* target
    if run.width == 4:
        for c in range(run.count):
            target = fields[c].target
            for r in range(m):
                memcpy(target + 4 * places[r], rows[r] + offset, 4)
            offset += 4
    else:
        for c in range(run.count):
            target = fields[c].target
            for r in range(m):
                memcpy(target + 8 * places[r], rows[r] + offset, 8)
            offset += 8
