"""Online rows, a batch at a time; docs/row-format.md is the format, codec/rows_py.py the twin.

    0  version  1  flags  2  layout id  4  CRC-32C  8  event time  16  created time
    24 presence bitmap | fixed section | ends of the heap fields | heap

Decoding writes into numpy arrays allocated beforehand (or memory of another module: columns.pxd), BLOCK
rows at a time: per row, check the header, the checksum and the ends of the heap. Wanted fields of one width
that are neighbours in the row make a Run; of the rows of a block that have all of a run, it is copied column
by column, so that each column is written in one place. What is left goes field by field. Heap fields are
only noted as spans in that pass, and put end to end after it.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from arrow cimport BLOB, BLOBS, FIXED, ITEMS, bit
from columns cimport (
    Answer, Columnar, Field, Run, Source, Span, all_set, copy_run, set_clock, take
)
from buffers cimport is_blob_list, load32, load_stamp
from crc32c cimport fs_crc32c, fs_crc32c_choose, fs_crc32c_portable
from read_batch cimport FOUND, UNKNOWN, Batch, Row, batch_key, batch_of, batch_row
from row_check cimport HEADER, VERSION, heap_fits, layout_of, wrong_row

import numpy as np

from fastserve.codec import status
from fastserve.codec.decoded import _NUMPY, DecodedRows, corrupt, make_plan, unavailable_rows
from fastserve._native.batch import ReadBatch
from fastserve.codec.fields import encode_defaults
from fastserve.codec.layout import FORMAT_VERSION
from fastserve.codec.rows_py import bad_list, refused
from fastserve.codec.rows_py import read_header as read_header_py
from fastserve.errors import CodecError

fs_crc32c_choose()

cdef enum:
    BLOCK = 16      # rows whose runs are copied together
    TYPES = 16      # scalar types of fixed width, at most

assert VERSION == FORMAT_VERSION

cdef uint8_t PRESENT = status.PRESENT
cdef uint8_t NULL_VALUE = status.NULL_VALUE
cdef uint8_t NOT_FOUND = status.NOT_FOUND
cdef uint8_t OUTSIDE_MAX_AGE = status.OUTSIDE_MAX_AGE
cdef uint8_t UNAVAILABLE = status.UNAVAILABLE


# ---- decoder -----------------------------------------------------------------------------------

@cython.final
cdef class Reading:
    """A layout as the decoder needs it: where each wanted field is."""

    cdef Source* sources
    cdef Run* runs          # together they hold every field that is alike enough; a field is in one at most
    cdef uint8_t* in_run    # bool[fields]
    cdef Py_ssize_t n_runs, n_single
    cdef Py_ssize_t ends_start, heap_start, n_heap

    def __cinit__(self, layout, sources, fields):
        cdef Py_ssize_t f, at
        self.ends_start = layout.ends_start
        self.heap_start = layout.heap_start
        self.n_heap = layout.n_heap
        self.sources = <Source*> calloc(len(sources) + 1, sizeof(Source))
        self.runs = <Run*> calloc(len(sources) + 1, sizeof(Run))
        self.in_run = <uint8_t*> calloc(len(sources) + 1, 1)
        if self.sources == NULL or self.runs == NULL or self.in_run == NULL:
            raise MemoryError
        for f, at in enumerate(sources):
            self.sources[f].bit = at
            if at >= 0:
                self.sources[f].offset = layout.offsets[at]
                self.sources[f].slot = layout.heap_slots[at]
        for f, field in enumerate(fields):
            if field.slot < 0 or sources[f] < 0 or field.dtype.width not in (4, 8):
                self.n_single += 1
            else:
                self.in_run[f] = 1
                self.extend(f, field.dtype.width)

    cdef int extend(self, Py_ssize_t f, Py_ssize_t width) except -1:
        """Field f goes on the last run, or begins one."""
        cdef Source* source = &self.sources[f]
        cdef Run* run = &self.runs[self.n_runs - 1]
        if self.n_runs and run.first + run.count == f and run.width == width:
            if (
                source.bit == run.bit + run.count
                and source.offset == run.offset + run.count * width
            ):
                run.count += 1
                return 0
        self.runs[self.n_runs] = Run(f, 1, width, source.bit, source.offset)
        self.n_runs += 1
        return 0

    def __dealloc__(self):
        free(self.sources)
        free(self.runs)
        free(self.in_run)


cdef char* memory(object array) except? NULL:
    """The memory of a contiguous numpy array, which the caller keeps alive."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_WRITABLE)
    PyBuffer_Release(&view)
    return <char*> view.buf


cdef int decode_columns(
    void* decoder, Answer* to, const Batch* source, Py_ssize_t start, Py_ssize_t stop
) except -1:
    return (<RowDecoder> decoder).columns(to, source, start, stop)


@cython.final
cdef class RowDecoder:
    """Reads the rows of one view version; see the twin for arguments and errors."""

    cdef readonly object plan
    cdef readonly object capsule
    cdef Columnar columnar  # for other modules: columns.pxd
    cdef Field* fields
    cdef Py_ssize_t n_fields, n_heap
    cdef list lists         # numbers of the fixed lists
    cdef dict readings      # layout id -> Reading
    cdef Reading last       # the one used last; rows of a batch are mostly of one layout
    cdef uint16_t last_id

    def __init__(self, layouts, names, defaults):
        cdef Py_ssize_t f
        cdef Field* field
        self.plan = make_plan(layouts, names, encode_defaults(layouts, names, defaults))
        self.n_fields = len(self.plan.fields)
        self.n_heap = 0
        items = list(self.plan.block_sizes)
        self.lists = [f for f, one in enumerate(self.plan.fields) if one.kind == FIXED and one.slot < 0]
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
            field.slot = one.slot
            field.block = items.index(one.dtype.item) if one.slot >= 0 else -1
            if field.kind != FIXED:
                field.heap = self.n_heap
                self.n_heap += 1
            if one.default is not None:  # kept alive by the plan
                field.default = Span(PyBytes_AS_STRING(one.default), len(one.default))
        self.readings = {
            layout_id: Reading(layout, self.plan.sources[layout_id], self.plan.fields)
            for layout_id, layout in self.plan.layouts.items()
        }
        self.columnar = Columnar(<void*> self, decode_columns, self.fields, self.n_fields, self.n_heap)
        self.capsule = PyCapsule_New(&self.columnar, "fastserve.rows", NULL)

    def __dealloc__(self):
        free(self.fields)

    def unavailable(self, n):
        """The answer for n entities whose store did not answer."""
        return unavailable_rows(self.plan, n)

    def decode(self, keys, rows, *, now_us, ttl_us):
        """Values and statuses of n entities."""
        if len(keys) != len(rows):
            raise CodecError(f"{len(keys)} keys but {len(rows)} rows")
        batch = ReadBatch(keys)
        batch.fill(rows, 0)
        return self.decode_batch(batch, 0, len(keys), now_us=now_us, ttl_us=ttl_us)

    def decode_batch(self, batch, Py_ssize_t start, Py_ssize_t stop, *, now_us, ttl_us):
        """The same for a range of a batch."""
        cdef Answer to
        cdef const Batch* source = batch_of(batch)
        cdef Py_ssize_t n = stop - start
        if not 0 <= start <= stop <= source.n:
            raise IndexError(f"keys {start} to {stop} of {source.n}")
        out = DecodedRows(self.plan, n)
        to.n = n
        set_clock(&to, now_us, ttl_us)
        self.point(&to, out)
        to.spans = <Span*> malloc((self.n_heap * n + 1) * sizeof(Span))
        if to.spans == NULL:
            raise MemoryError
        try:
            self.columns(&to, source, start, stop)
            if self.n_heap:
                self.fill_heap(&to, out, batch.keys(start, stop))
        finally:
            free(to.spans)
        return out

    cdef int point(self, Answer* to, object out) except -1:
        """Take the addresses of the arrays."""
        cdef Py_ssize_t f, k = 0
        cdef char* bases[TYPES]
        cdef Field* field
        to.row_status = <uint8_t*> memory(out.row_status)
        to.statuses = <uint8_t*> memory(out.statuses)
        to.valid = <uint8_t*> memory(out.valid)
        to.event_ts = <int64_t*> memory(out.event_ts)
        to.created_ts = <int64_t*> memory(out.created_ts)
        for block in out.blocks.values():
            bases[k] = memory(block)
            k += 1
        for f in range(self.n_fields):
            field = &self.fields[f]
            if field.block >= 0:
                field.target = bases[field.block] + field.slot * to.n * field.width
        for f in self.lists:
            self.fields[f].target = memory(out._others[f][0])
        return 0

    cdef int columns(
        self, Answer* to, const Batch* source, Py_ssize_t start, Py_ssize_t stop
    ) except -1:
        """Rows start … stop - 1 of the batch to columns: assume PRESENT, and write down what is not."""
        cdef Py_ssize_t at
        memset(to.statuses, PRESENT, self.n_fields * to.n)
        memset(to.valid, 1, self.n_fields * to.n)
        memset(to.spans, 0, self.n_heap * to.n * sizeof(Span))
        for at in range(start, stop, BLOCK):
            self.block(to, source, at, min(at + BLOCK, stop), start)
        return 0

    cdef int block(
        self, Answer* to, const Batch* source, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t first
    ) except -1:
        """Rows start … stop - 1 of the batch, BLOCK at most; row `first` is entity 0."""
        cdef Reading reading, before = None
        cdef const char* rows[BLOCK]
        cdef Py_ssize_t places[BLOCK]
        cdef Py_ssize_t i, m = 0
        cdef uint8_t found
        for i in range(start, stop):
            reading = self.look(to, source, i, i - first, &found)
            to.row_status[i - first] = found
            if reading is None:
                self.absent(to, i - first, found)
                continue
            if reading is not before and m:
                self.copy_runs(to, before, rows, places, m)
                m = 0
            before = reading
            rows[m] = source.rows[i].data
            places[m] = i - first
            m += 1
            if reading.n_single:
                self.singles(to, i - first, reading, source.rows[i].data)
        if m:
            self.copy_runs(to, before, rows, places, m)
        return 0

    cdef Reading look(
        self, Answer* to, const Batch* source, Py_ssize_t i, Py_ssize_t at, uint8_t* found
    ):
        """Check the row of key i and note its stamps; its layout where it is PRESENT, else None."""
        cdef const Row* row = &source.rows[i]
        cdef Reading reading
        cdef int64_t event_ts
        found[0] = UNAVAILABLE if row.state == UNKNOWN else NOT_FOUND
        if row.state != FOUND:
            return None
        reading = self.check(source, i)
        event_ts = load_stamp(row.data + 8)
        if event_ts > to.now:
            return None
        to.event_ts[at] = event_ts
        to.created_ts[at] = load_stamp(row.data + 16)
        if to.bounded and event_ts <= to.oldest:
            found[0] = OUTSIDE_MAX_AGE
            return None
        found[0] = PRESENT
        self.check_heap(reading, source, i)
        return reading

    cdef Reading check(self, const Batch* source, Py_ssize_t i):
        """The row's layout, once format, checksum and layout are known to be right."""
        cdef uint16_t layout_id
        if wrong_row(source, i):
            raise refused(batch_key(source, i), batch_row(source, i))
        layout_id = layout_of(source.rows[i].data)
        if self.last is not None and self.last_id == layout_id:
            return self.last
        reading = self.readings.get(layout_id)
        if reading is None:
            raise corrupt(batch_key(source, i), "the layout is unknown", layout_id, 2)
        self.last, self.last_id = reading, layout_id
        return reading

    cdef int check_heap(self, Reading reading, const Batch* source, Py_ssize_t i) except -1:
        cdef const Row* row = &source.rows[i]
        if heap_fits(row.data, row.size, reading.ends_start, reading.n_heap, reading.heap_start):
            return 0
        wrong, offset = "the heap does not fit the row", reading.ends_start
        if row.size < reading.heap_start:
            wrong, offset = f"the row is cut short: {row.size} bytes", row.size
        raise corrupt(batch_key(source, i), wrong, layout_of(row.data), offset)

    cdef void absent(self, Answer* to, Py_ssize_t i, uint8_t found) noexcept:
        cdef Py_ssize_t f
        cdef Field* field
        for f in range(self.n_fields):
            field = &self.fields[f]
            to.statuses[f * to.n + i] = found
            if field.default.data != NULL and found != UNAVAILABLE:
                take(field, to, i, field.default.data, field.default.size)
            else:
                to.valid[f * to.n + i] = 0

    # Every offset used below lies inside the row: check_heap has seen to it.

    cdef void copy_runs(
        self, Answer* to, Reading reading, const char** rows, const Py_ssize_t* places, Py_ssize_t m
    ) noexcept:
        """The runs of m rows of one layout; field by field those of a row that has a null in them."""
        cdef Py_ssize_t k, r, f, whole
        cdef Run* run
        cdef const char* all_rows[BLOCK]
        cdef Py_ssize_t all_places[BLOCK]
        for k in range(reading.n_runs):
            run = &reading.runs[k]
            whole = 0
            for r in range(m):
                if all_set(<const uint8_t*> rows[r] + HEADER, run.bit, run.count):
                    all_rows[whole] = rows[r]
                    all_places[whole] = places[r]
                    whole += 1
                else:
                    for f in range(run.first, run.first + run.count):
                        self.one(to, places[r], reading, f, rows[r])
            copy_run(run, all_rows, all_places, whole, &self.fields[run.first])

    cdef void singles(self, Answer* to, Py_ssize_t i, Reading reading, const char* row) noexcept:
        """The fields that are in no run."""
        cdef Py_ssize_t f
        for f in range(self.n_fields):
            if not reading.in_run[f]:
                self.one(to, i, reading, f, row)

    cdef void one(self, Answer* to, Py_ssize_t i, Reading reading, Py_ssize_t f, const char* row) noexcept:
        """Field f of entity i."""
        cdef Field* field = &self.fields[f]
        cdef Source* source = &reading.sources[f]
        cdef const char* ends = row + reading.ends_start
        cdef Py_ssize_t start
        if source.bit >= 0 and bit(<const uint8_t*> row + HEADER, source.bit):
            if field.kind == FIXED:
                take(field, to, i, row + source.offset, field.width)
            else:
                start = load32(ends + 4 * source.slot - 4) if source.slot else 0
                take(field, to, i, row + reading.heap_start + start, load32(ends + 4 * source.slot) - start)
        elif source.bit < 0 and field.default.data != NULL:
            take(field, to, i, field.default.data, field.default.size)
        else:
            to.statuses[f * to.n + i] = NULL_VALUE
            to.valid[f * to.n + i] = 0

    # ---- heap fields: spans -> arrays ----

    cdef int fill_heap(self, Answer* to, object out, object keys) except -1:
        cdef Py_ssize_t f
        cdef Field* field
        for f in range(self.n_fields):
            field = &self.fields[f]
            if field.kind == FIXED:
                continue
            spans = to.spans + field.heap * to.n
            name = self.plan.fields[f].name
            if field.kind == BLOBS:
                out._others[f] = blob_lists(field, spans, to.n, name, keys)
            else:
                kind = np.uint8 if field.kind == BLOB else _NUMPY[self.plan.fields[f].dtype.item]
                out._others[f] = joined(field, spans, to.n, kind, name, keys)
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
