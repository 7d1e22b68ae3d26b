"""Encodes online rows, a batch at a time; docs/row-format.md is the format, codec/rows_py.py the twin.

Reads Arrow memory through the C data interface: per row, measure the heap, take memory once, fill it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from arrow cimport FIXED, ArrowArray, Column, attach, bit, heap_size
from arrow cimport items_present, write_fixed, write_heap
from buffers cimport store32, store_stamp
from read_batch cimport Batch, batch_key, batch_of, key_at, key_size, owned_bytes, set_row
from crc32c cimport fs_crc32c_choose, row_crc

from fastserve.codec.decoded import field_kind
from fastserve.codec.fields import check_columns, null_item
from fastserve.codec.layout import FORMAT_VERSION
from fastserve.codec.rows_py import check_stamps
from fastserve.errors import TooLargeError

fs_crc32c_choose()

cdef enum:
    HEADER = 24
    VERSION = 1
    BLOCK = 64          # rows

assert VERSION == FORMAT_VERSION

cdef int64_t U32_MAX = 0xFFFFFFFF


cdef class RowEncoder:
    """Writes rows of one layout; see the twin for arguments and errors."""

    cdef readonly object layout
    cdef Column* columns
    cdef Py_ssize_t n_fields, heap_start, ends_start
    cdef bint measured          # whether rows of what is attached need a look before they are written
    cdef uint16_t layout_id
    cdef char* head             # see write_head

    def __init__(self, layout):
        cdef Py_ssize_t f
        self.layout = layout
        self.layout_id = layout.layout_id
        self.n_fields = len(layout.names)
        self.ends_start = layout.ends_start
        self.heap_start = layout.heap_start
        free(self.columns)
        self.columns = <Column*> calloc(self.n_fields + 1, sizeof(Column))
        free(self.head)
        self.head = <char*> malloc(HEADER + (self.n_fields + 7) // 8)
        if self.columns == NULL or self.head == NULL:
            raise MemoryError
        for f, dtype in enumerate(layout.dtypes):
            self.columns[f].kind = field_kind(dtype)
            self.columns[f].boolean = dtype.item == "bool"
            self.columns[f].width = dtype.width or dtype.scalar.width
            self.columns[f].length = dtype.length or 0
            self.columns[f].place = layout.offsets[f] if dtype.width else layout.heap_slots[f]

    def __dealloc__(self):
        free(self.columns)
        free(self.head)

    def encode(self, keys, columns, event_ts, created_ts):
        """One row per key."""
        cdef Py_ssize_t i, size, n = len(keys)
        cdef const int64_t[:] events, created
        cdef list rows = [None] * n
        cdef bytes key, row
        check_columns(self.layout, columns, n)
        events = check_stamps("event_ts", event_ts, n)
        created = check_stamps("created_ts", created_ts, n)
        _held = self.point_at(columns, n)
        for i in range(n):
            key = keys[i]
            size = self.size_of(i)
            if size - self.heap_start > U32_MAX:
                raise too_large(key)
            rows[i] = row = PyBytes_FromStringAndSize(NULL, size)
            self.write(
                PyBytes_AS_STRING(row), size, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
                i, events[i], created[i])
        return rows

    def encode_into(self, batch, columns, event_ts, created_ts):
        """One row per key of a batch, set there."""
        cdef Batch* to = batch_of(batch)
        cdef Py_ssize_t i, size
        cdef const int64_t[:] events, created
        cdef char* row
        check_columns(self.layout, columns, to.n)
        events = check_stamps("event_ts", event_ts, to.n)
        created = check_stamps("created_ts", created_ts, to.n)
        _held = self.point_at(columns, to.n)
        if not self.measured:
            self.write_head()
            for i in range(0, to.n, BLOCK):
                self.write_block(to, i, min(BLOCK, to.n - i), events, created)
            return
        for i in range(to.n):
            size = self.size_of(i)
            if size > U32_MAX:
                raise too_large(batch_key(to, i))
            row = owned_bytes(to, size)
            self.write(row, size, key_at(to, i), key_size(to, i), i, events[i], created[i])
            set_row(to, i, row, size, 0, 0)

    cdef list point_at(self, columns, Py_ssize_t n):
        """Point at n values of each column; what is returned keeps them alive."""
        cdef Py_ssize_t f
        cdef list held = []
        cdef Column* c
        self.measured = False
        for f in range(self.n_fields if n else 0):
            c = &self.columns[f]
            _, array = columns[f].__arrow_c_array__()
            held.append(array)
            attach(c, <const ArrowArray*> PyCapsule_GetPointer(array, "arrow_array"))
            if c.kind != FIXED or c.item_present != NULL:
                self.measured = True
        return held

    cdef Py_ssize_t size_of(self, Py_ssize_t i) except -1:
        """Bytes of row i."""
        cdef int64_t heap = 0
        cdef Py_ssize_t f
        cdef Column* c
        if not self.measured:
            return self.heap_start
        for f in range(self.n_fields):
            c = &self.columns[f]
            if c.present != NULL and not bit(c.present, c.offset + i):
                continue
            if not items_present(c, i):
                raise null_item(self.layout.names[f], i)
            if c.kind != FIXED:
                heap += heap_size(c, i)
        return self.heap_start + heap

    cdef void write_head(self) noexcept:
        """What all rows without a heap begin with: layout, and the bits of the columns without nulls."""
        cdef Py_ssize_t f
        memset(self.head, 0, HEADER + (self.n_fields + 7) // 8)
        self.head[0] = VERSION
        memcpy(self.head + 2, &self.layout_id, 2)
        for f in range(self.n_fields):
            if self.columns[f].present == NULL:
                self.head[HEADER + (f >> 3)] |= <char> (1 << (f & 7))

    cdef int write_block(
        self, Batch* to, Py_ssize_t first, Py_ssize_t count, const int64_t[:] events, const int64_t[:] created
    ) except -1:
        """Some rows without a heap, column by column: what is read and written stays in the nearest cache."""
        cdef Py_ssize_t r, f, size = self.heap_start, head = HEADER + (self.n_fields + 7) // 8
        cdef char* rows = owned_bytes(to, count * size)
        cdef char* row = rows
        for r in range(first, first + count):
            memcpy(row, self.head, head)
            store_stamp(row + 8, events[r])
            store_stamp(row + 16, created[r])
            row += size
        for f in range(self.n_fields):
            write_column(&self.columns[f], f, first, count, rows, size)
        row = rows
        for r in range(first, first + count):
            store32(row + 4, row_crc(key_at(to, r), key_size(to, r), row, size))
            set_row(to, r, row, size, 0, 0)
            row += size
        return 0

    cdef int write(
        self, char* out, Py_ssize_t size, const char* key, Py_ssize_t key_bytes,
        Py_ssize_t i, int64_t event_ts, int64_t created_ts
    ) except -1:
        """Fill in the bytes of row i."""
        cdef int64_t heap = 0, value
        cdef Py_ssize_t f
        cdef Column* c
        memset(out, 0, self.heap_start)
        out[0] = VERSION
        memcpy(out + 2, &self.layout_id, 2)
        store_stamp(out + 8, event_ts)
        store_stamp(out + 16, created_ts)
        for f in range(self.n_fields):
            c = &self.columns[f]
            value = 0
            if c.present == NULL or bit(c.present, c.offset + i):
                out[HEADER + (f >> 3)] |= <char> (1 << (f & 7))
                if c.kind == FIXED:
                    write_fixed(c, i, out + c.place)
                else:
                    value = heap_size(c, i)
                    write_heap(c, i, out + self.heap_start + heap, value)
            if c.kind != FIXED:
                heap += value
                store32(out + self.ends_start + 4 * c.place, <uint32_t> heap)
        store32(out + 4, row_crc(key, key_bytes, out, size))
        return 0


cdef inline void write_column(
    Column* c, Py_ssize_t f, Py_ssize_t first, Py_ssize_t count, char* rows, Py_ssize_t size
) noexcept nogil:
    """Field f, of fixed width, of rows that lie end to end; the bit of a column without nulls is set."""
    cdef Py_ssize_t r
    cdef char* out = rows + c.place
    cdef const char* data = c.data + (c.offset + first) * c.width
    if c.present != NULL:
        for r in range(count):
            if bit(c.present, c.offset + first + r):
                rows[r * size + HEADER + (f >> 3)] |= <char> (1 << (f & 7))
                write_fixed(c, first + r, out + r * size)
            else:
                memset(out + r * size, 0, c.width)
    elif c.boolean or c.length or c.width not in (4, 8):
        for r in range(count):
            write_fixed(c, first + r, out + r * size)
    elif c.width == 4:
        for r in range(count):
            memcpy(out + r * size, data + 4 * r, 4)
    else:
        for r in range(count):
            memcpy(out + r * size, data + 8 * r, 8)


cdef object too_large(bytes key):
    return TooLargeError("a row's heap is more than 4 GiB", where=f"key {key!r}")
