"""A plan's answer as JSON, straight from its rows.

fastserve/api/json_answer.py makes the same bytes from decoded columns.

    rows ──► columns in an arena of our own ──► one text:  head | values | statuses | views | metadata

orjson writes the floats, a block of neighbouring columns at a time: nothing here is quicker at that. Null is
NaN to it, which it writes as null; a NaN that is a value is written by its name, in its place.

Where one block is all the values, orjson writes the whole text, and the block's is never copied:

    {"names": …, "dtypes": …, "values": the block, "statuses": a Fragment with all that follows, made here}

What this does not know (lists, bytes) is for the general way: `decode` gives None.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport PyObject, Py_XDECREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcpy

from columns cimport Answer, Columnar, Field, Span, columnar_of, lay_out, set_clock
from json_text cimport (
    INT_BYTES, TIME_BYTES, put_bytes, put_int, put_null, put_text, put_time
)
from read_batch cimport Batch, batch_of

import numpy as np
import orjson

from fastserve.codec import status
from fastserve.errors import CodecError

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL
    char* bytes_data "PyBytes_AS_STRING"(PyObject* bytes_) nogil
    int _PyBytes_Resize(PyObject** bytes_, Py_ssize_t size) except -1

cdef extern from "math.h" nogil:
    const float NAN
    bint isnan(double value)
    bint isfinite(double value)

cdef enum:
    FEW = 8             # rows of a block below which orjson is quicker with one flat list
    KEPT_BYTES = 1 << 20    # of an arena, from one answer to the next

cdef enum Kind:
    FLOAT32
    FLOAT64
    INT32
    INT64
    BOOL
    TIMESTAMP
    TEXT

cdef dict _KINDS = {
    "float32": FLOAT32, "float64": FLOAT64, "int32": INT32, "int64": INT64, "bool": BOOL,
    "timestamp": TIMESTAMP, "string": TEXT,
}
cdef object dumps = orjson.dumps
cdef object NUMPY = orjson.OPT_SERIALIZE_NUMPY
cdef object Fragment = orjson.Fragment
cdef uint8_t PRESENT = status.PRESENT
cdef uint8_t OUTSIDE_MAX_AGE = status.OUTSIDE_MAX_AGE

cdef struct Output:     # `count` answered columns: floats of one type, neighbours in a read; else one column
    Kind kind
    Py_ssize_t read
    Py_ssize_t field    # the first one's
    Py_ssize_t count
    bint by_name        # some of its values are NaN or infinite


cdef bint singles_by_name(
    float* values, const uint8_t* valid, Py_ssize_t n, bint nulls
) noexcept nogil:
    """Make nulls NaN; whether a value is NaN or infinite too."""
    cdef Py_ssize_t i
    cdef uint32_t bits, worst = 0
    for i in range(n):      # a loop that the compiler makes eight wide
        memcpy(&bits, values + i, 4)
        worst |= ((bits & 0x7F800000) == 0x7F800000) & valid[i]
    if nulls:
        for i in range(n):
            if not valid[i]:
                values[i] = NAN
    return worst


cdef bint doubles_by_name(
    double* values, const uint8_t* valid, Py_ssize_t n, bint nulls
) noexcept nogil:
    """The same."""
    cdef Py_ssize_t i
    cdef uint64_t bits, infinite = <uint64_t> 0x7FF << 52, worst = 0
    for i in range(n):
        memcpy(&bits, values + i, 8)
        worst |= ((bits & infinite) == infinite) & valid[i]
    if nulls:
        for i in range(n):
            if not valid[i]:
                values[i] = NAN
    return worst


cdef inline double number(const char* column, Kind kind, Py_ssize_t i) noexcept nogil:
    return (<const float*> column)[i] if kind == FLOAT32 else (<const double*> column)[i]


@cython.final
cdef class JsonDecoder:
    """Writes the answers to one plan.

    Args:
        decoders: the native RowDecoder of each read.
        columns: (read, number of the field there) of each answered column.
        names, dtypes: the text of those lists.
        views: for each read, all up to its times.
        tail: metadata up to the number of rows, and after it; without the closing braces.

    Raises:
        ValueError: a column is of a type that is not written here.
    """

    cdef list decoders, views
    cdef bytes head, before_rows, after_rows
    cdef object names, dtypes
    cdef Columnar** reads
    cdef Answer* answers
    cdef Output* outputs
    cdef Py_ssize_t n_reads, n_outputs, n_columns, fixed_bytes
    cdef object arena, singles, doubles
    cdef char* memory
    cdef Py_ssize_t capacity

    def __init__(self, decoders, columns, bytes names, bytes dtypes, views, tail):
        self.decoders = list(decoders)
        self.names, self.dtypes = Fragment(names), Fragment(dtypes)
        self.head = b'{"names":' + names + b',"dtypes":' + dtypes + b',"values":'
        self.views = list(views)
        self.before_rows, self.after_rows = tail
        self.n_reads, self.n_columns = len(self.decoders), len(columns)
        self.fixed_bytes = 128 * (self.n_reads + 2) + len(self.head) + sum(map(len, [*self.views, *tail]))
        self.reads = <Columnar**> calloc(self.n_reads + 1, sizeof(Columnar*))
        self.answers = <Answer*> calloc(self.n_reads + 1, sizeof(Answer))
        self.outputs = <Output*> calloc(self.n_columns + 1, sizeof(Output))
        if self.reads == NULL or self.answers == NULL or self.outputs == NULL:
            raise MemoryError
        for r, decoder in enumerate(self.decoders):
            self.reads[r] = columnar_of(decoder)
        for read, field in columns:
            self.extend(read, field, self.decoders[read].plan.fields[field].dtype)

    def __dealloc__(self):
        free(self.reads)
        free(self.answers)
        free(self.outputs)

    cdef int extend(self, Py_ssize_t read, Py_ssize_t field, object dtype) except -1:
        """One more column: it goes on the last output, or begins one."""
        cdef Output* last = &self.outputs[self.n_outputs - 1]
        cdef Kind kind
        if dtype.is_list or dtype.item not in _KINDS:
            raise ValueError(f"{dtype} is not written here")
        kind = _KINDS[dtype.item]
        if (
            self.n_outputs and kind <= FLOAT64 and last.kind == kind and last.read == read
            and last.field + last.count == field
        ):
            last.count += 1
            return 0
        self.outputs[self.n_outputs] = Output(kind, read, field, 1, False)
        self.n_outputs += 1
        return 0

    def decode(self, batch, Py_ssize_t n, int64_t now_us, ttls_us, bytes extra=b""):
        """The answer for n entities; None where the general way has to make it.

        Args:
            extra: of the metadata, with a comma before it.
        """
        cdef const Batch* source = batch_of(batch)
        cdef Py_ssize_t r, k
        cdef list texts = []
        if not n:
            return None
        if source.n != self.n_reads * n:
            raise CodecError(f"{source.n} keys for {self.n_reads} reads of {n} entities")
        self.divide(n)
        for r in range(self.n_reads):
            set_clock(&self.answers[r], now_us, ttls_us[r])
            self.reads[r].decode(self.reads[r].decoder, &self.answers[r], source, r * n, (r + 1) * n)
        for k in range(self.n_outputs):
            texts.append(self.block(&self.outputs[k], n) if self.outputs[k].kind <= FLOAT64 else None)
        if (
            self.n_outputs == 1 and self.outputs[0].kind <= FLOAT64
            and n >= FEW and not self.outputs[0].by_name
        ):
            answer = self.around(texts[0], n, extra)
        else:
            texts = [None if block is None else dumps(block, None, NUMPY) for block in texts]
            answer = self.write(texts, n, extra)
        if self.capacity > KEPT_BYTES:      # one large request is no reason to hold so much for ever
            self.arena = self.singles = self.doubles = None
            self.capacity = 0
        return answer

    # ---- columns -------------------------------------------------------------------------------

    cdef int divide(self, Py_ssize_t n) except -1:
        """Give every read its part of the arena."""
        cdef Py_ssize_t r, size = 0
        for r in range(self.n_reads):
            size += self.place(r, n, NULL)
        if size > self.capacity:
            self.arena = np.empty(2 * size, np.uint8)
            self.singles, self.doubles = self.arena.view(np.float32), self.arena.view(np.float64)
            self.capacity = 2 * size
            self.memory = memory_of(self.arena)
        size = 0
        for r in range(self.n_reads):
            size += self.place(r, n, self.memory + size)
        return 0

    cdef Py_ssize_t place(self, Py_ssize_t r, Py_ssize_t n, char* at) noexcept:
        """The bytes that a read needs; where `at` is not NULL they are its from there on."""
        cdef Columnar* read = self.reads[r]
        cdef Answer* to = &self.answers[r]
        cdef Py_ssize_t f, size = 0
        cdef Field* field
        for f in range(read.n_fields):
            field = &read.fields[f]
            if f and field.block != read.fields[f - 1].block:
                size = (size + 7) & ~7
            if field.block >= 0:
                field.target = at + size
                size += field.width * n
        size = (size + 7) & ~7
        return size + lay_out(to, read, n, NULL if at == NULL else at + size)

    cdef object block(self, Output* output, Py_ssize_t n):
        """Its floats for orjson: count x n, or flat where there are few rows or some go by name."""
        cdef Answer* read = &self.answers[output.read]
        cdef char* first = self.reads[output.read].fields[output.field].target
        cdef const uint8_t* valid = read.valid + output.field * n
        cdef Py_ssize_t count = output.count * n, at
        cdef bint nulls = memchr(valid, 0, count) != NULL
        if output.kind == FLOAT32:
            output.by_name = singles_by_name(<float*> first, valid, count, nulls)
        else:
            output.by_name = doubles_by_name(<double*> first, valid, count, nulls)
        if output.kind == FLOAT32:
            at = (first - self.memory) // 4
            block = self.singles[at:at + count]
        else:
            at = (first - self.memory) // 8
            block = self.doubles[at:at + count]
        if n >= FEW and not output.by_name:
            block = block.reshape(output.count, n)
        return block

    # ---- text ----------------------------------------------------------------------------------

    cdef bytes around(self, object block, Py_ssize_t n, bytes extra):
        """The answer whose values are one block, by orjson."""
        rest = Fragment(self.write(None, n, extra))
        answer = {"names": self.names, "dtypes": self.dtypes, "values": block, "statuses": rest}
        return dumps(answer, None, NUMPY)

    cdef object write(self, list texts, Py_ssize_t n, bytes extra):
        """The answer, from the columns; without texts what follows `"statuses":`, but for the last brace."""
        cdef Py_ssize_t room = self.fixed_bytes + PyBytes_GET_SIZE(extra), k
        cdef PyObject* out
        cdef char* end
        room += self.n_columns * (2 * n + 4) + self.n_reads * n * (TIME_BYTES + INT_BYTES + 2)
        if texts is not None:
            for k in range(self.n_outputs):
                room += self.room_of(&self.outputs[k], texts[k], n)
        out = new_bytes(NULL, room)
        try:
            if texts is None:
                end = self.fill_rest(bytes_data(out), n, extra)
            else:
                end = self.fill(bytes_data(out), texts, n, extra)
            _PyBytes_Resize(&out, end - bytes_data(out))    # in place: it shrinks
            return <object> out
        finally:
            Py_XDECREF(out)

    cdef char* fill(self, char* to, list texts, Py_ssize_t n, bytes extra) except NULL:
        """Write all of it; where it ends."""
        cdef Py_ssize_t k
        to = put_whole(to, self.head)
        for k in range(self.n_outputs):
            to[0] = c"," if k else c"["
            to = self.put_output(to + 1, &self.outputs[k], texts[k], n)
        to = put_bytes(to, b'],"statuses":', 13)
        to = self.fill_rest(to, n, extra)
        to[0] = c"}"
        return to + 1

    cdef char* fill_rest(self, char* to, Py_ssize_t n, bytes extra) noexcept:
        """Write the statuses and all that follows, but for the last brace; where it ends."""
        cdef Py_ssize_t r
        to = self.put_statuses(to, n)
        to = put_bytes(to, b',"views":', 9)
        for r in range(self.n_reads):
            to[0] = c"," if r else c"["
            to = put_whole(to + 1, self.views[r])
            to = put_times(to, &self.answers[r])
        to[0] = c"]"
        to = put_whole(to + 1, self.before_rows)
        to = put_int(to, n)
        to = put_whole(to, self.after_rows)
        to = put_whole(to, extra)
        to[0] = c"}"
        return to + 1

    cdef Py_ssize_t room_of(self, Output* output, object text, Py_ssize_t n) except -1:
        """Bytes that are enough for an output's text."""
        cdef Py_ssize_t i, size = 0
        cdef const Span* spans
        if output.kind <= FLOAT64:
            return PyBytes_GET_SIZE(text) + output.count * (4 + (12 * n if output.by_name else 0))
        if output.kind == TEXT:
            spans = self.texts_of(output, n)
            for i in range(n):
                if spans[i].data != NULL:
                    size += spans[i].size
            return 6 * size + 7 * n + 4
        return n * (TIME_BYTES + 1) + 4

    cdef const Span* texts_of(self, Output* output, Py_ssize_t n) noexcept:
        cdef Columnar* read = self.reads[output.read]
        return self.answers[output.read].spans + read.fields[output.field].heap * n

    cdef char* put_output(self, char* to, Output* output, object text, Py_ssize_t n) except NULL:
        cdef Answer* read = &self.answers[output.read]
        cdef const uint8_t* valid = read.valid + output.field * n
        cdef const char* column = self.reads[output.read].fields[output.field].target
        cdef Py_ssize_t i
        if output.kind <= FLOAT64:
            if n >= FEW and not output.by_name:
                return put_bytes(to, PyBytes_AS_STRING(text) + 1, PyBytes_GET_SIZE(text) - 2)
            return put_flat(to, PyBytes_AS_STRING(text) + 1, output, valid, column, n)
        for i in range(n):
            to[0] = c"," if i else c"["
            to += 1
            if not valid[i]:
                to = put_null(to)
            elif output.kind == INT32:
                to = put_int(to, (<const int32_t*> column)[i])
            elif output.kind == INT64:
                to = put_int(to, (<const int64_t*> column)[i])
            elif output.kind == BOOL:
                to = put_bytes(to, b"true", 4) if column[i] else put_bytes(to, b"false", 5)
            elif output.kind == TIMESTAMP:
                to = put_time(to, (<const int64_t*> column)[i])
            else:
                to = put_utf8(to, &self.texts_of(output, n)[i])
        to[0] = c"]"
        return to + 1

    cdef char* put_statuses(self, char* to, Py_ssize_t n) noexcept:
        cdef Py_ssize_t k, i
        cdef Output* output
        cdef const uint8_t* statuses
        to[0] = c"["
        to += 1
        for k in range(self.n_outputs):
            output = &self.outputs[k]
            statuses = self.answers[output.read].statuses + output.field * n
            for _ in range(output.count):
                to[0] = c"["
                for i in range(n):
                    to[1 + 2 * i] = <char> (c"0" + statuses[i])
                    to[2 + 2 * i] = c","
                to += 2 * n
                to[0] = c"]"
                to[1] = c","
                to += 2
                statuses += n
        to[-1] = c"]"
        return to


cdef inline bint known(const Answer* read, Py_ssize_t i) noexcept nogil:
    """Whether the entity has a row, fresh or expired."""
    return read.row_status[i] == PRESENT or read.row_status[i] == OUTSIDE_MAX_AGE


cdef char* memory_of(object array) except NULL:
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_WRITABLE)
    PyBuffer_Release(&view)
    return <char*> view.buf


cdef inline char* put_whole(char* to, bytes data) noexcept:
    return put_bytes(to, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef char* put_utf8(char* to, const Span* text) except NULL:
    """A string of a row, which must be what it says it is."""
    cdef Py_ssize_t i
    for i in range(text.size):
        if text.data[i] & 0x80:
            PyUnicode_DecodeUTF8(text.data, text.size, NULL)
            break
    return put_text(to, text.data, text.size)


cdef char* put_flat(
    char* to, const char* text, const Output* output, const uint8_t* valid, const char* column, Py_ssize_t n
) noexcept:
    """One flat list of numbers as `count` lists of n; a value that is null to orjson goes by its name."""
    cdef Py_ssize_t at = 0
    cdef const char* end
    cdef double value
    for _ in range(output.count):
        to[0] = c"["
        to += 1
        for _ in range(n):
            end = text
            while end[0] != c"," and end[0] != c"]":
                end += 1
            value = number(column, output.kind, at) if output.by_name and valid[at] else 0
            if isfinite(value):
                to = put_bytes(to, text, end - text)
            elif isnan(value):
                to = put_bytes(to, b'"NaN"', 5)
            elif value > 0:
                to = put_bytes(to, b'"Infinity"', 10)
            else:
                to = put_bytes(to, b'"-Infinity"', 11)
            to[0] = c","
            to += 1
            text = end + 1
            at += 1
        to[-1] = c"]"
        to[0] = c","
        to += 1
    return to - 1


cdef char* put_times(char* to, const Answer* read) noexcept:
    """The times of a read's rows, and their ages."""
    cdef Py_ssize_t i
    for i in range(read.n):
        to[0] = c"," if i else c"["
        to = put_time(to + 1, read.event_ts[i]) if known(read, i) else put_null(to + 1)
    to = put_bytes(to, b'],"freshness_ms":', 17)
    for i in range(read.n):
        to[0] = c"," if i else c"["
        if known(read, i):
            to = put_int(to + 1, (read.now - read.event_ts[i]) // 1_000)
        else:
            to = put_null(to + 1)
    return put_bytes(to, b"]}", 2)
