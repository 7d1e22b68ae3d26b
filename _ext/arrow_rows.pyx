"""A plan's answer as an Arrow stream, straight from its rows.

fastserve/api/arrow_answer.py writes the same by pyarrow, from decoded columns.

    stream    of n entities, all of it PRESENT and every value 0; where its parts lie was found by pyarrow
    answer    a copy of it: rows are decoded into its buffers; bitmaps, null counts and statuses are written
              only where not everything is there
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcpy, memset

from columns cimport Answer, Columnar, columnar_of, lay_out, set_clock
from read_batch cimport Batch, batch_of

from fastserve.codec import status
from fastserve.errors import CodecError

cdef uint8_t PRESENT = status.PRESENT
cdef uint8_t OUTSIDE_MAX_AGE = status.OUTSIDE_MAX_AGE

cdef struct Place:          # of a column; offsets into the stream
    Py_ssize_t read
    Py_ssize_t field
    Py_ssize_t values
    Py_ssize_t bitmap
    Py_ssize_t nulls
    Py_ssize_t statuses     # -1: a column of times, which has none
    Py_ssize_t bytes_       # of a value; 0: bits
    Py_ssize_t first        # the column that the same field is decoded to; -1 for this one


cdef void put_bits(char* to, const uint8_t* flags, Py_ssize_t n) noexcept nogil:
    """n flags as bits, lowest first, over whole bytes."""
    cdef Py_ssize_t i
    memset(to, 0, (n + 7) // 8)
    for i in range(n):
        to[i >> 3] |= <char> ((flags[i] != 0) << (i & 7))


@cython.final
cdef class ArrowFiller:
    """Makes the answers to one plan for n entities.

    Args:
        decoders: the native RowDecoder of each read; fields of fixed width alone.
        stream: as above, but with nulls everywhere.
        columns: of each answered column: read, number of the field there, and the offsets of its values, its
            bitmap, its null count, its statuses.
        times: of the times of each read: the offsets of the values, the bitmap, the null count.
    """

    cdef list decoders
    cdef readonly bytes stream
    cdef Columnar** reads
    cdef Answer* answers
    cdef Place* columns
    cdef Place* times
    cdef char* memory           # what answers point to, then bools, a byte each
    cdef uint8_t* flags         # n of them
    cdef Py_ssize_t n, n_reads, n_columns

    def __init__(self, decoders, Py_ssize_t n, bytes stream, columns, times):
        cdef Py_ssize_t r, size = 0
        self.decoders, self.n = list(decoders), n
        self.n_reads, self.n_columns = len(self.decoders), len(columns)
        self.reads = <Columnar**> calloc(self.n_reads + 1, sizeof(Columnar*))
        self.answers = <Answer*> calloc(self.n_reads + 1, sizeof(Answer))
        self.columns = <Place*> calloc(self.n_columns + 1, sizeof(Place))
        self.times = <Place*> calloc(self.n_reads + 1, sizeof(Place))
        if self.reads == NULL or self.answers == NULL or self.columns == NULL or self.times == NULL:
            raise MemoryError
        for r, decoder in enumerate(self.decoders):
            self.reads[r] = columnar_of(decoder)
            size += lay_out(&self.answers[r], self.reads[r], n, NULL)
        self.memory = <char*> malloc(size + n * (self.n_columns + 1))
        if self.memory == NULL:
            raise MemoryError
        self.flags = <uint8_t*> self.memory + size + n * self.n_columns
        size = 0
        for r in range(self.n_reads):
            size += lay_out(&self.answers[r], self.reads[r], n, self.memory + size)
        self.find(columns, times)
        self.stream = self.present(stream)

    def __dealloc__(self):
        free(self.reads)
        free(self.answers)
        free(self.columns)
        free(self.times)
        free(self.memory)

    cdef int find(self, columns, times) except -1:
        """Note where the columns lie."""
        cdef dict seen = {}
        cdef Columnar* read
        for k, (r, f, values, bitmap, nulls, statuses) in enumerate(columns):
            read = self.reads[<Py_ssize_t> r]
            self.columns[k] = Place(
                r, f, values, bitmap, nulls, statuses, 0 if read.fields[<Py_ssize_t> f].boolean
                else read.fields[<Py_ssize_t> f].width, seen.setdefault((r, f), k))
            if self.columns[k].first == k:
                self.columns[k].first = -1
        for r, (values, bitmap, nulls) in enumerate(times):
            self.times[r] = Place(r, 0, values, bitmap, nulls, -1, 8, -1)
        return 0

    cdef bytes present(self, bytes stream):
        """The stream with everything PRESENT."""
        cdef bytes out = PyBytes_FromStringAndSize(PyBytes_AS_STRING(stream), PyBytes_GET_SIZE(stream))
        cdef char* base = PyBytes_AS_STRING(out)
        cdef Py_ssize_t k
        memset(self.flags, 1, self.n)
        for k in range(self.n_columns):
            self.put_nulls(base, &self.columns[k], self.flags)
            memset(base + self.columns[k].statuses, PRESENT, self.n)
        for k in range(self.n_reads):
            self.put_nulls(base, &self.times[k], self.flags)
        return out

    def fill(self, batch, int64_t now_us, ttls_us):
        """The answer.

        Raises:
            CodecError: a row is corrupt, or the batch is not of n entities.
        """
        cdef const Batch* source = batch_of(batch)
        cdef Py_ssize_t r, k, n = self.n
        cdef bytes out
        cdef char* base
        if source.n != self.n_reads * n:
            raise CodecError(f"{source.n} keys for {self.n_reads} reads of {n} entities")
        out = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.stream), PyBytes_GET_SIZE(self.stream))
        base = PyBytes_AS_STRING(out)
        self.point(base)
        for r in range(self.n_reads):
            set_clock(&self.answers[r], now_us, ttls_us[r])
            self.reads[r].decode(self.reads[r].decoder, &self.answers[r], source, r * n, (r + 1) * n)
        for k in range(self.n_columns):
            self.put_rest(base, &self.columns[k])
        for r in range(self.n_reads):
            self.put_times(base, r)
        return out

    cdef void point(self, char* base) noexcept:
        """Decode into the stream; bools beside it."""
        cdef Py_ssize_t k
        cdef Place* place
        cdef uint8_t* bools = self.flags - self.n * self.n_columns
        for k in range(self.n_columns):
            place = &self.columns[k]
            if place.first < 0:
                self.reads[place.read].fields[place.field].target = (
                    base + place.values if place.bytes_ else <char*> bools + k * self.n)

    cdef void put_rest(self, char* base, Place* place) noexcept:
        """What was not decoded in place: bits, the second column of a field, and what is not there."""
        cdef Answer* read = &self.answers[place.read]
        cdef Py_ssize_t n = self.n
        cdef const uint8_t* valid = read.valid + place.field * n
        cdef const uint8_t* statuses = read.statuses + place.field * n
        cdef const char* decoded = self.reads[place.read].fields[place.field].target
        cdef Py_ssize_t i
        cdef bint whole = memchr(valid, 0, n) == NULL
        if not place.bytes_:
            for i in range(n):
                self.flags[i] = valid[i] and decoded[i]
            put_bits(base + place.values, self.flags, n)
        elif place.first >= 0:
            memcpy(base + place.values, base + self.columns[place.first].values, n * place.bytes_)
        if not whole:
            self.put_nulls(base, place, valid)
        memcpy(base + place.statuses, statuses, n)

    cdef void put_times(self, char* base, Py_ssize_t r) noexcept:
        cdef Answer* read = &self.answers[r]
        cdef Py_ssize_t i
        cdef bint whole = True
        for i in range(self.n):
            self.flags[i] = read.row_status[i] == PRESENT or read.row_status[i] == OUTSIDE_MAX_AGE
            if not self.flags[i]:
                read.event_ts[i] = 0
                whole = False
        memcpy(base + self.times[r].values, read.event_ts, 8 * self.n)
        if not whole:
            self.put_nulls(base, &self.times[r], self.flags)

    cdef void put_nulls(self, char* base, const Place* place, const uint8_t* valid) noexcept:
        """A column's bitmap and null count."""
        cdef int64_t nulls = 0
        cdef Py_ssize_t i
        put_bits(base + place.bitmap, valid, self.n)
        for i in range(self.n):
            nulls += not valid[i]
        memcpy(base + place.nulls, &nulls, 8)
