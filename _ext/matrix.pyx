"""A plan's answer as one matrix of numbers; codec/matrix_py.py is the twin and says what lies where.

Each wanted field is a Cell for each layout: where it is in the row, and its columns. Neighbours that need
no conversion, in the row and in the matrix, make a Run, which one memcpy takes from a row that has all of
it: for a view of float32 that is the whole row.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MIN, int32_t, int64_t, uint16_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from buffers cimport load_stamp
from columns cimport all_set
from arrow cimport bit
from crc32c cimport fs_crc32c_choose
from read_batch cimport CACHED, FOUND, UNKNOWN, Batch, Row, batch_key, batch_of, batch_row
from row_check cimport HEADER, heap_fits, layout_of, wrong_row

from fastserve.codec import status
from fastserve.codec.decoded import corrupt
from fastserve.codec.rows_py import refused
from fastserve.errors import CodecError

fs_crc32c_choose()

cdef uint8_t PRESENT = status.PRESENT
cdef uint8_t NOT_FOUND = status.NOT_FOUND
cdef uint8_t OUTSIDE_MAX_AGE = status.OUTSIDE_MAX_AGE
cdef uint8_t UNAVAILABLE = status.UNAVAILABLE

cdef enum Form:     # of a field's items in the row, and in the matrix
    COPY            # alike
    F4_F8
    I4_F8
    B_F4
    B_F8

cdef struct Cell:
    Form form
    Py_ssize_t bit          # -1: the field is younger than the layout
    Py_ssize_t offset
    Py_ssize_t column
    Py_ssize_t count        # columns, which are items in the row
    const char* default     # its bytes, kept alive by the decoder's plan; NULL: none

cdef struct Run:            # of cells; none of them converted where there are several
    Py_ssize_t first        # cell
    Py_ssize_t cells
    Py_ssize_t bytes

cdef struct Out:
    char* matrix
    uint8_t* valid
    uint8_t* statuses
    Py_ssize_t columns
    Py_ssize_t row_bytes
    Py_ssize_t mask_bytes
    Py_ssize_t item_bytes
    bint rows_only          # one read fills whole rows: each is zeroed only where it has to be


cdef inline void set_bits(uint8_t* bits, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t end = first + count
    while first < end and first & 7:
        bits[first >> 3] |= <uint8_t> (1 << (first & 7))
        first += 1
    while first + 8 <= end:
        bits[first >> 3] = 0xFF
        first += 8
    while first < end:
        bits[first >> 3] |= <uint8_t> (1 << (first & 7))
        first += 1


cdef inline void convert(Form form, Py_ssize_t count, const char* data, char* out) noexcept nogil:
    """`count` items of a row to the matrix."""
    cdef Py_ssize_t k
    cdef float single
    cdef double wide
    cdef int32_t integer
    for k in range(count):
        if form == F4_F8:
            memcpy(&single, data + 4 * k, 4)
            wide = single
            memcpy(out + 8 * k, &wide, 8)
        elif form == I4_F8:
            memcpy(&integer, data + 4 * k, 4)
            wide = integer
            memcpy(out + 8 * k, &wide, 8)
        elif form == B_F4:
            single = data[k] != 0
            memcpy(out + 4 * k, &single, 4)
        else:
            wide = data[k] != 0
            memcpy(out + 8 * k, &wide, 8)


cdef inline void put_cell(
    const Cell* cell, const char* data, char* row, uint8_t* valid, Py_ssize_t item_bytes
) noexcept nogil:
    """A value, from its bytes in a row, to row and bitmap of the matrix."""
    cdef char* out = row + cell.column * item_bytes
    if cell.form == COPY:
        memcpy(out, data, cell.count * item_bytes)
    else:
        convert(cell.form, cell.count, data, out)
    set_bits(valid, cell.column, cell.count)


cdef Form form_of(str item, Py_ssize_t item_bytes) except *:
    if item == "bool":
        return B_F4 if item_bytes == 4 else B_F8
    if item == "float32":
        return COPY if item_bytes == 4 else F4_F8
    if item == "int32":
        return I4_F8
    return COPY


@cython.final
cdef class Reading:
    """One layout of one read."""

    cdef Cell* cells
    cdef Run* runs
    cdef Py_ssize_t n_cells, n_runs, ends_start, heap_start, n_heap
    cdef bint one_run       # all cells are in it

    def __cinit__(self, layout, sources, wanted, fields, Py_ssize_t item_bytes):
        """`wanted`: (number of the field, first column, columns) of this read."""
        cdef Cell* cell
        cdef Py_ssize_t c, number, column, count, at
        self.ends_start, self.heap_start = layout.ends_start, layout.heap_start
        self.n_heap = layout.n_heap
        self.n_cells = len(wanted)
        self.cells = <Cell*> calloc(self.n_cells + 1, sizeof(Cell))
        self.runs = <Run*> calloc(self.n_cells + 1, sizeof(Run))
        if self.cells == NULL or self.runs == NULL:
            raise MemoryError
        for c, (number, column, count) in enumerate(wanted):
            cell = &self.cells[c]
            at = sources[number]
            cell.form = form_of(fields[number].dtype.item, item_bytes)
            cell.bit = at
            cell.offset = layout.offsets[at] if at >= 0 else 0
            cell.column, cell.count = column, count
            if fields[number].default is not None:
                cell.default = PyBytes_AS_STRING(fields[number].default)
            self.extend(c, item_bytes)
        self.one_run = self.n_runs == 1 and self.runs[0].cells == self.n_cells > 1

    cdef void extend(self, Py_ssize_t c, Py_ssize_t item_bytes) noexcept:
        """Cell c goes on the last run, or begins one."""
        cdef Cell* cell = &self.cells[c]
        cdef Run* run = &self.runs[self.n_runs - 1]
        cdef Cell* last
        if self.n_runs and cell.form == COPY and cell.bit >= 0:
            last = &self.cells[c - 1]
            if (
                last.form == COPY and last.bit >= 0 and cell.bit == last.bit + 1
                and cell.offset == last.offset + last.count * item_bytes
                and cell.column == last.column + last.count
            ):
                run.cells += 1
                run.bytes += cell.count * item_bytes
                return
        self.runs[self.n_runs] = Run(c, 1, cell.count * item_bytes)
        self.n_runs += 1

    def __dealloc__(self):
        free(self.cells)
        free(self.runs)

    cdef void put_row(self, const char* row, char* out, uint8_t* valid, Py_ssize_t item_bytes) noexcept nogil:
        """A row that is PRESENT; every offset lies inside it: heap_fits has seen to it."""
        cdef const uint8_t* present = <const uint8_t*> row + HEADER
        cdef Py_ssize_t k, c
        cdef Run* run
        cdef Cell* cell
        for k in range(self.n_runs):
            run = &self.runs[k]
            cell = &self.cells[run.first]
            if run.cells > 1 and all_set(present, cell.bit, run.cells):
                memcpy(out + cell.column * item_bytes, row + cell.offset, run.bytes)
                set_bits(valid, cell.column, run.bytes // item_bytes)
                continue
            for c in range(run.first, run.first + run.cells):
                cell = &self.cells[c]
                if cell.bit >= 0 and bit(present, cell.bit):
                    put_cell(cell, row + cell.offset, out, valid, item_bytes)
                elif cell.bit < 0 and cell.default != NULL:
                    put_cell(cell, cell.default, out, valid, item_bytes)

    cdef bint put_whole(self, const char* row, char* out, uint8_t* valid, const Out* to) noexcept nogil:
        """A row that has all of the matrix's columns, in one run; False, with nothing done, for any other."""
        cdef Cell* cell = self.cells
        if not self.one_run or self.runs[0].bytes != to.row_bytes:
            return False
        if not all_set(<const uint8_t*> row + HEADER, cell.bit, self.n_cells):
            return False
        memcpy(out, row + cell.offset, to.row_bytes)
        memset(valid, 0xFF, to.mask_bytes)
        if to.columns & 7:
            valid[to.mask_bytes - 1] = <uint8_t> ((1 << (to.columns & 7)) - 1)
        return True

    cdef void put_defaults(self, char* out, uint8_t* valid, Py_ssize_t item_bytes) noexcept nogil:
        cdef Py_ssize_t c
        for c in range(self.n_cells):
            if self.cells[c].default != NULL:
                put_cell(&self.cells[c], self.cells[c].default, out, valid, item_bytes)


@cython.final
cdef class MatrixDecoder:
    """See the twin."""

    cdef readonly object shape
    cdef list reads         # for each read: {layout id: Reading}
    cdef list plans         # keep the defaults alive
    cdef Py_ssize_t item_bytes, n_columns

    def __init__(self, decoders, shape):
        self.shape = shape
        self.item_bytes = shape.item_bytes
        self.n_columns = len(shape.names)
        self.plans = [decoder.plan for decoder in decoders]
        self.reads = []
        for r, plan in enumerate(self.plans):
            wanted = [(number, start, count) for read, number, start, count in shape.fields if read == r]
            self.reads.append({
                layout_id: Reading(layout, plan.sources[layout_id], wanted, plan.fields, self.item_bytes)
                for layout_id, layout in plan.layouts.items()
            })

    def decode(self, batch, Py_ssize_t n, int64_t now_us, ttls_us):
        """Matrix, bitmap and statuses of n entities."""
        cdef const Batch* source = batch_of(batch)
        cdef Py_ssize_t r, reads = len(self.reads)
        cdef Out out
        if source.n != reads * n:
            raise CodecError(f"{source.n} keys for {reads} reads of {n} entities")
        out.item_bytes = self.item_bytes
        out.columns = self.n_columns
        out.row_bytes = self.n_columns * self.item_bytes
        out.mask_bytes = (self.n_columns + 7) // 8
        body = PyBytes_FromStringAndSize(NULL, n * (out.row_bytes + out.mask_bytes + reads))
        out.matrix = PyBytes_AS_STRING(body)
        out.valid = <uint8_t*> out.matrix + n * out.row_bytes
        out.statuses = out.valid + n * out.mask_bytes
        out.rows_only = reads == 1
        if not out.rows_only:
            memset(out.matrix, 0, n * (out.row_bytes + out.mask_bytes))
        for r in range(reads):
            self.put_read(&out, source, r * n, n, <dict> self.reads[r], now_us, ttls_us[r])
            out.statuses += n
        return body

    cdef int put_read(
        self, Out* out, const Batch* source, Py_ssize_t start, Py_ssize_t n, dict readings,
        int64_t now_us, object ttl_us
    ) except -1:
        """One read's rows, from key `start` on."""
        cdef Reading reading = None, first = next(iter(readings.values()))
        cdef bint bounded = ttl_us is not None and now_us - ttl_us >= INT64_MIN
        cdef int64_t event_ts, oldest = now_us - ttl_us if bounded else 0
        cdef uint16_t layout_id, last = 0
        cdef Py_ssize_t i
        cdef const Row* row
        cdef uint8_t found
        cdef char* to
        cdef uint8_t* valid
        for i in range(n):
            row = &source.rows[start + i]
            to = out.matrix + i * out.row_bytes
            valid = out.valid + i * out.mask_bytes
            found = UNAVAILABLE if row.state == UNKNOWN else NOT_FOUND
            if row.state == FOUND:
                layout_id = layout_of(row.data) if row.size >= HEADER else 0
                if reading is None or layout_id != last:
                    reading, last = readings.get(layout_id), layout_id
                if reading is None or not row.flags & CACHED:   # what is cached was looked at
                    self.check(reading, source, start + i)
                event_ts = load_stamp(row.data + 8)
                if event_ts <= now_us:
                    found = OUTSIDE_MAX_AGE if bounded and event_ts <= oldest else PRESENT
            out.statuses[i] = found
            if found == PRESENT:
                if not heap_fits(
                    row.data, row.size, reading.ends_start, reading.n_heap, reading.heap_start
                ):
                    self.refuse_heap(source, start + i)
                if out.rows_only and reading.put_whole(row.data, to, valid, out):
                    continue
            if out.rows_only:
                memset(to, 0, out.row_bytes)
                memset(valid, 0, out.mask_bytes)
            if found == PRESENT:
                reading.put_row(row.data, to, valid, out.item_bytes)
            elif found != UNAVAILABLE:
                first.put_defaults(to, valid, out.item_bytes)
        return 0

    cdef int check(self, Reading reading, const Batch* source, Py_ssize_t i) except -1:
        if wrong_row(source, i):
            raise refused(batch_key(source, i), batch_row(source, i))
        if reading is None:
            raise corrupt(batch_key(source, i), "the layout is unknown", layout_of(source.rows[i].data), 2)
        return 0

    cdef int refuse_heap(self, const Batch* source, Py_ssize_t i) except -1:
        raise corrupt(
            batch_key(source, i), "the heap does not fit the row", layout_of(source.rows[i].data), 0)
