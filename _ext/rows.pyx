"""Online rows, a batch at a time; docs/row-format.md is the format, codec/rows_py.py the twin.

    0  version  1  flags  2  layout id  4  CRC-32C  8  event time  16  created time
    24 presence bitmap | fixed section | ends of the heap fields | heap

Encoding reads Arrow memory through the C data interface: per row, measure the heap, allocate the row
once, fill it. Decoding writes into numpy arrays allocated beforehand: per row, check the header, the
checksum and the ends of the heap, then per wanted field copy its bytes to row i of its column. The
heap fields are only noted as spans in that pass and put end to end after it.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from arrow cimport BLOB, BLOBS, FIXED, ITEMS, ArrowArray, Column, attach, bit, heap_size
from arrow cimport items_present, write_fixed, write_heap
from buffers cimport is_blob_list, load32, load_stamp, store32, store_stamp
from crc32c cimport fs_crc32c, fs_crc32c_choose, fs_crc32c_portable, row_crc

import numpy as np

from fastserve.codec import status
from fastserve.codec.decoded import _NUMPY, DecodedRows, corrupt, field_kind, make_plan, unavailable_rows
from fastserve.codec.fields import check_columns, encode_defaults, null_item
from fastserve.codec.layout import FORMAT_VERSION
from fastserve.codec.rows_py import TORN, bad_list, check_stamps
from fastserve.codec.rows_py import read_header as read_header_py
from fastserve.errors import CodecError, TooLargeError

fs_crc32c_choose()

cdef enum:
    HEADER = 24
    VERSION = 1

assert VERSION == FORMAT_VERSION

cdef uint8_t PRESENT = status.PRESENT
cdef uint8_t NULL_VALUE = status.NULL_VALUE
cdef uint8_t NOT_FOUND = status.NOT_FOUND
cdef uint8_t OUTSIDE_MAX_AGE = status.OUTSIDE_MAX_AGE
cdef int64_t U32_MAX = 0xFFFFFFFF


# ---- encoder -----------------------------------------------------------------------------------


cdef class RowEncoder:
    """Writes rows of one layout; see the twin for arguments and errors."""

    cdef readonly object layout
    cdef Column* columns
    cdef Py_ssize_t n_fields, heap_start, ends_start
    cdef uint16_t layout_id

    def __init__(self, layout):
        cdef Py_ssize_t f
        self.layout = layout
        self.layout_id = layout.layout_id
        self.n_fields = len(layout.names)
        self.ends_start = layout.ends_start
        self.heap_start = layout.heap_start
        free(self.columns)
        self.columns = <Column*> calloc(self.n_fields + 1, sizeof(Column))
        if self.columns == NULL:
            raise MemoryError
        for f, dtype in enumerate(layout.dtypes):
            self.columns[f].kind = field_kind(dtype)
            self.columns[f].boolean = dtype.item == "bool"
            self.columns[f].width = dtype.width or dtype.scalar.width
            self.columns[f].length = dtype.length or 0
            self.columns[f].place = layout.offsets[f] if dtype.width else layout.heap_slots[f]

    def __dealloc__(self):
        free(self.columns)

    def encode(self, keys, columns, event_ts, created_ts):
        """One row per key."""
        cdef Py_ssize_t i, f, n = len(keys)
        cdef const int64_t[:] events, created
        cdef list rows = [None] * n, held = []
        check_columns(self.layout, columns, n)
        events = check_stamps("event_ts", event_ts, n)
        created = check_stamps("created_ts", created_ts, n)
        if not n:
            return rows
        for f in range(self.n_fields):
            _, array = columns[f].__arrow_c_array__()
            held.append(array)
            attach(&self.columns[f], <const ArrowArray*> PyCapsule_GetPointer(array, "arrow_array"))
        for i in range(n):
            rows[i] = self.row(keys[i], i, events[i], created[i])
        return rows

    cdef bytes row(self, bytes key, Py_ssize_t i, int64_t event_ts, int64_t created_ts):
        cdef int64_t heap = 0, size
        cdef Py_ssize_t f
        cdef Column* c
        cdef bytes row
        cdef char* out
        for f in range(self.n_fields):
            c = &self.columns[f]
            if c.present != NULL and not bit(c.present, c.offset + i):
                continue
            if not items_present(c, i):
                raise null_item(self.layout.names[f], i)
            if c.kind != FIXED:
                heap += heap_size(c, i)
        if heap > U32_MAX:
            raise TooLargeError("a row's heap is more than 4 GiB", where=f"key {key!r}")
        row = PyBytes_FromStringAndSize(NULL, self.heap_start + heap)
        out = PyBytes_AS_STRING(row)
        memset(out, 0, self.heap_start)
        out[0] = VERSION
        memcpy(out + 2, &self.layout_id, 2)
        store_stamp(out + 8, event_ts)
        store_stamp(out + 16, created_ts)
        heap = 0
        for f in range(self.n_fields):
            c = &self.columns[f]
            size = 0
            if c.present == NULL or bit(c.present, c.offset + i):
                out[HEADER + (f >> 3)] |= <char> (1 << (f & 7))
                if c.kind == FIXED:
                    write_fixed(c, i, out + c.place)
                else:
                    size = heap_size(c, i)
                    write_heap(c, i, out + self.heap_start + heap, size)
            if c.kind != FIXED:
                heap += size
                store32(out + self.ends_start + 4 * c.place, <uint32_t> heap)
        store32(out + 4, row_crc(key, out, PyBytes_GET_SIZE(row)))
        return row


# ---- decoder -----------------------------------------------------------------------------------

cdef struct Span:
    const char* data      # NULL for null
    Py_ssize_t size

cdef struct Field:
    int kind
    bint boolean
    Py_ssize_t width      # FIXED: bytes in the row; ITEMS: bytes of an item
    Py_ssize_t length     # of a fixed list, else -1
    Py_ssize_t heap       # its number among the wanted heap fields, or -1
    Span default
    char* target          # FIXED: where entity 0's value goes; set for each batch

cdef struct Source:
    Py_ssize_t bit        # the field's position in the layout, or -1: written before it existed
    Py_ssize_t offset     # FIXED: row offset
    Py_ssize_t slot       # heap: its number among the layout's heap fields


cdef class Reading:
    """A layout as the decoder needs it: where each wanted field is."""

    cdef Source* sources
    cdef Py_ssize_t ends_start, heap_start, n_heap

    def __cinit__(self, layout, sources):
        cdef Py_ssize_t f, at
        self.ends_start = layout.ends_start
        self.heap_start = layout.heap_start
        self.n_heap = layout.n_heap
        self.sources = <Source*> calloc(len(sources) + 1, sizeof(Source))
        if self.sources == NULL:
            raise MemoryError
        for f, at in enumerate(sources):
            self.sources[f].bit = at
            if at >= 0:
                self.sources[f].offset = layout.offsets[at]
                self.sources[f].slot = layout.heap_slots[at]

    def __dealloc__(self):
        free(self.sources)


cdef struct Batch:
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


cdef inline list as_list(object values):
    return values if type(values) is list else list(values)


cdef char* memory(object array) except? NULL:
    """The memory of a contiguous numpy array, which the caller keeps alive."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_WRITABLE)
    PyBuffer_Release(&view)
    return <char*> view.buf


cdef inline void take(Field* field, Batch* batch, Py_ssize_t i, const char* data, Py_ssize_t size) \
        noexcept nogil:
    """Copy one value to its column, or note where it is."""
    cdef Py_ssize_t j
    cdef char* out
    if field.kind != FIXED:
        batch.spans[field.heap * batch.n + i] = Span(data, size)
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


cdef class RowDecoder:
    """Reads the rows of one view version; see the twin for arguments and errors."""

    cdef readonly object plan
    cdef Field* fields
    cdef Py_ssize_t n_fields, n_heap
    cdef dict readings      # layout id -> Reading

    def __init__(self, layouts, names, defaults):
        cdef Py_ssize_t f
        cdef Field* field
        self.plan = make_plan(layouts, names, encode_defaults(layouts, names, defaults))
        self.n_fields = len(self.plan.fields)
        self.n_heap = 0
        free(self.fields)
        self.fields = <Field*> calloc(self.n_fields + 1, sizeof(Field))
        if self.fields == NULL:
            raise MemoryError
        for f, one in enumerate(self.plan.fields):
            field = &self.fields[f]
            field.kind = one.kind
            field.boolean = one.dtype.item == "bool"
            field.width = one.dtype.width or one.dtype.scalar.width
            field.length = -1 if one.dtype.length is None else one.dtype.length
            field.heap = -1
            if field.kind != FIXED:
                field.heap = self.n_heap
                self.n_heap += 1
            if one.default is not None:  # kept alive by the plan
                field.default = Span(PyBytes_AS_STRING(one.default), len(one.default))
        self.readings = {
            layout_id: Reading(layout, self.plan.sources[layout_id])
            for layout_id, layout in self.plan.layouts.items()
        }

    def __dealloc__(self):
        free(self.fields)

    def unavailable(self, n):
        """The answer for n entities whose store did not answer."""
        return unavailable_rows(self.plan, n)

    def decode(self, keys, rows, *, now_us, ttl_us):
        """Values and statuses of n entities."""
        cdef Batch batch
        cdef Py_ssize_t i, n = len(rows)
        if len(keys) != n:
            raise CodecError(f"{len(keys)} keys but {n} rows")
        keys, rows = as_list(keys), as_list(rows)  # spans point into the rows, so hold on to them
        out = DecodedRows(self.plan, n)
        batch.n = n
        batch.now = now_us
        batch.bounded = ttl_us is not None and now_us - ttl_us >= INT64_MIN
        batch.oldest = now_us - ttl_us if batch.bounded else 0
        self.point(&batch, out)
        batch.spans = <Span*> calloc(self.n_heap * n + 1, sizeof(Span))
        if batch.spans == NULL:
            raise MemoryError
        try:
            for i in range(n):
                self.one(&batch, i, keys[i], rows[i])
            if self.n_heap:
                self.fill_heap(&batch, out, keys)
        finally:
            free(batch.spans)
        return out

    cdef int point(self, Batch* batch, object out) except -1:
        """Take the addresses of the arrays; assume PRESENT, and write down what is not."""
        cdef Py_ssize_t f, values = self.n_fields * batch.n
        cdef Field* field
        batch.row_status = <uint8_t*> memory(out.row_status)
        batch.statuses = <uint8_t*> memory(out.statuses)
        batch.valid = <uint8_t*> memory(out.valid)
        batch.event_ts = <int64_t*> memory(out.event_ts)
        batch.created_ts = <int64_t*> memory(out.created_ts)
        memset(batch.statuses, PRESENT, values)
        memset(batch.valid, 1, values)
        bases = {item: <size_t> memory(block) for item, block in out.blocks.items()}
        for f, one in enumerate(self.plan.fields):
            field = &self.fields[f]
            if field.kind == FIXED and one.slot >= 0:
                field.target = <char*> <size_t> bases[one.dtype.item]
                field.target += <Py_ssize_t> one.slot * batch.n * field.width
            elif field.kind == FIXED:
                field.target = memory(out._others[f][0])
        return 0

    cdef int one(self, Batch* batch, Py_ssize_t i, bytes key, bytes row) except -1:
        """Entity i: its statuses, stamps and values."""
        cdef Reading reading
        cdef const char* data
        cdef int64_t event_ts
        cdef uint8_t found = NOT_FOUND
        if row is not None:
            data = PyBytes_AS_STRING(row)
            reading = self.check(key, row)
            event_ts = load_stamp(data + 8)
            if event_ts <= batch.now:
                batch.event_ts[i] = event_ts
                batch.created_ts[i] = load_stamp(data + 16)
                found = PRESENT
                if batch.bounded and event_ts <= batch.oldest:
                    found = OUTSIDE_MAX_AGE
        batch.row_status[i] = found
        if found == PRESENT:
            self.check_heap(reading, key, row)
            self.present(batch, i, reading, data)
        else:
            self.absent(batch, i, found)
        return 0

    cdef void absent(self, Batch* batch, Py_ssize_t i, uint8_t found) noexcept:
        cdef Py_ssize_t f
        cdef Field* field
        for f in range(self.n_fields):
            field = &self.fields[f]
            batch.statuses[f * batch.n + i] = found
            if field.default.data != NULL:
                take(field, batch, i, field.default.data, field.default.size)
            else:
                batch.valid[f * batch.n + i] = 0

    cdef void present(self, Batch* batch, Py_ssize_t i, Reading reading, const char* row) noexcept:
        """Every offset used here lies inside the row: check_heap has seen to it."""
        cdef Py_ssize_t f, start
        cdef Source* source
        cdef Field* field
        cdef const char* ends = row + reading.ends_start
        for f in range(self.n_fields):
            field = &self.fields[f]
            source = &reading.sources[f]
            if source.bit >= 0 and bit(<const uint8_t*> row + HEADER, source.bit):
                if field.kind == FIXED:
                    take(field, batch, i, row + source.offset, field.width)
                else:
                    start = load32(ends + 4 * source.slot - 4) if source.slot else 0
                    take(field, batch, i, row + reading.heap_start + start,
                         load32(ends + 4 * source.slot) - start)
            elif source.bit < 0 and field.default.data != NULL:
                take(field, batch, i, field.default.data, field.default.size)
            else:
                batch.statuses[f * batch.n + i] = NULL_VALUE
                batch.valid[f * batch.n + i] = 0

    cdef Reading check(self, bytes key, bytes row):
        """The row's layout, once format, checksum and layout are known to be right."""
        cdef const char* data = PyBytes_AS_STRING(row)
        cdef uint16_t layout_id
        if PyBytes_GET_SIZE(row) < HEADER:
            raise corrupt(key, f"the row is cut short: {len(row)} bytes", None, 0)
        if data[0] != VERSION or data[1]:
            raise corrupt(key, f"unknown row format, version {row[0]}, flags {row[1]}", None, 0)
        memcpy(&layout_id, data + 2, 2)
        if load32(data + 4) != row_crc(key, data, PyBytes_GET_SIZE(row)):
            raise corrupt(key, TORN, layout_id, 4)
        reading = self.readings.get(layout_id)
        if reading is None:
            raise corrupt(key, "the layout is unknown", layout_id, 2)
        return reading

    cdef int check_heap(self, Reading reading, bytes key, bytes row) except -1:
        """The row reaches to its heap, and the heap's ends rise to the row's end."""
        cdef Py_ssize_t slot, size = PyBytes_GET_SIZE(row)
        cdef const char* data = PyBytes_AS_STRING(row)
        cdef uint32_t end = 0, last = 0
        cdef bint rising = True
        if size < reading.heap_start:
            raise corrupt(key, f"the row is cut short: {size} bytes", read_header_py(row)[0], size)
        for slot in range(reading.n_heap):
            end = load32(data + reading.ends_start + 4 * slot)
            rising &= end >= last
            last = end
        if not rising or reading.heap_start + <Py_ssize_t> last != size:
            raise corrupt(key, "the heap does not fit the row", read_header_py(row)[0], reading.ends_start)
        return 0

    # ---- heap fields: spans -> arrays ----

    cdef int fill_heap(self, Batch* batch, object out, object keys) except -1:
        cdef Py_ssize_t f
        cdef Field* field
        for f in range(self.n_fields):
            field = &self.fields[f]
            if field.kind == FIXED:
                continue
            spans = batch.spans + field.heap * batch.n
            name = self.plan.fields[f].name
            if field.kind == BLOBS:
                out._others[f] = blob_lists(field, spans, batch.n, name, keys)
            else:
                kind = np.uint8 if field.kind == BLOB else _NUMPY[self.plan.fields[f].dtype.item]
                out._others[f] = joined(field, spans, batch.n, kind, name, keys)
        return 0


cdef tuple joined(Field* field, Span* spans, Py_ssize_t n, object kind, str name, object keys):
    """BLOB and ITEMS: the spans end to end. (values, offsets, item_offsets, data)"""
    cdef Py_ssize_t i, at = 0, width = field.width if field.kind == ITEMS else 1
    offsets = np.empty(n + 1, np.int64)
    cdef int64_t* ends = <int64_t*> memory(offsets)
    cdef char* target
    ends[0] = 0
    for i in range(n):
        if spans[i].size % width:
            raise bad_list(name, keys[i])
        ends[i + 1] = ends[i] + spans[i].size // width
    values = np.empty(ends[n], kind)
    target = memory(values)
    for i in range(n):
        if spans[i].size:
            memcpy(target + at, spans[i].data, spans[i].size)
            at += spans[i].size
    if field.kind == BLOB:
        return None, offsets, None, values
    return (values.view(np.uint8) != 0 if field.boolean else values), offsets, None, None


cdef tuple blob_lists(Field* field, Span* spans, Py_ssize_t n, str name, object keys):
    """BLOBS: the items end to end. (values, offsets, item_offsets, data)"""
    cdef Py_ssize_t i, j, at = 0, total = 0, size
    offsets = np.empty(n + 1, np.int64)
    cdef int64_t* ends = <int64_t*> memory(offsets)
    cdef int64_t* item_ends
    cdef char* target
    ends[0] = 0
    for i in range(n):
        if spans[i].data != NULL and not is_blob_list(spans[i].data, spans[i].size, field.length):
            raise bad_list(name, keys[i])
        ends[i + 1] = ends[i]
        if spans[i].data != NULL:
            ends[i + 1] += load32(spans[i].data)
            total += spans[i].size - 4 - 4 * load32(spans[i].data)
    item_offsets = np.empty(ends[n] + 1, np.int64)
    item_ends = <int64_t*> memory(item_offsets)
    data = np.empty(total, np.uint8)
    target = memory(data)
    item_ends[0] = 0
    for i in range(n):
        if spans[i].data == NULL:
            continue
        for j in range(ends[i + 1] - ends[i]):
            item_ends[ends[i] + j + 1] = at + load32(spans[i].data + 4 + 4 * j)
        size = spans[i].size - 4 - 4 * (ends[i + 1] - ends[i])
        if size:
            memcpy(target + at, spans[i].data + spans[i].size - size, size)
        at += size
    return None, offsets, item_offsets, data


# ---- functions ---------------------------------------------------------------------------------


def crc32c(bytes data, uint32_t crc=0):
    """CRC-32C; pass the CRC of what came before to go on from there."""
    return fs_crc32c(crc, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


def crc32c_portable(bytes data, uint32_t crc=0):
    """The same without the CPU's instruction; for tests."""
    return fs_crc32c_portable(crc, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


def read_header(bytes row):
    """(layout id, event_ts, created_ts) of a row; the checksum is not looked at."""
    cdef const char* data = PyBytes_AS_STRING(row)
    cdef uint16_t layout_id
    if PyBytes_GET_SIZE(row) < HEADER or data[0] != VERSION or data[1]:
        return read_header_py(row)
    memcpy(&layout_id, data + 2, 2)
    return layout_id, load_stamp(data + 8), load_stamp(data + 16)
