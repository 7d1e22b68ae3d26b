"""Requests that differ in their keys alone; fastserve/api/shapes_py.py is the twin and says what a shape is.

Nothing is made of a key on the way: a column becomes spans of the body, and a key is its view's prefix and
its spans, for what is taken here stands in JSON as it stands in a key.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy

from buffers cimport reserve
from read_batch cimport Batch, batch_of, close_key, reserve_keys

from fastserve._native.batch import ReadBatch
from fastserve.api import wire

cdef extern from "string.h" nogil:
    void* memmem(const void* text, size_t size, const void* part, size_t part_size)

cdef enum:
    MAX_COLUMNS = 8
    MAX_SKELETON = 4_096
    MAX_BODY = 1 << 20      # spans are offsets of 32 bits
    MAX_DIGITS = 18         # which all fit an int64
    WORD = 16               # bytes copied at once

cdef Py_ssize_t MAX_ENTITIES = wire.MAX_ENTITIES
cdef const char* MEMBER = b'"entities"'

cdef struct Hole:           # a list of the body, between its brackets
    Py_ssize_t start
    Py_ssize_t end

cdef struct Span:
    uint32_t start
    uint32_t size


# What ends a plain run of a text: what JSON or a key would write in another way, and all that is no ASCII.
cdef uint8_t[256] _special
cdef int _c
for _c in range(256):
    _special[_c] = _c < 0x20 or _c >= 0x7F or _c == c'"' or _c == c"\\" or _c == c"%" or _c == c"|"


cdef inline Py_ssize_t blank(const char* body, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    while at < end and (body[at] == c" " or body[at] == c"\n" or body[at] == c"\r" or body[at] == c"\t"):
        at += 1
    return at


cdef inline Py_ssize_t integer(const char* body, Py_ssize_t at, Py_ssize_t end, Span* span) noexcept nogil:
    """Past a whole number that a key would write alike; -1 where there is none."""
    cdef Py_ssize_t start = at, first
    if at < end and body[at] == c"-":
        at += 1
    first = at
    while at < end and <uint8_t> (body[at] - c"0") < 10:
        at += 1
    if at == first or at - first > MAX_DIGITS or (body[first] == c"0" and at - start > 1):
        return -1           # none, too long, leading zeros, or -0
    span.start, span.size = <uint32_t> start, <uint32_t> (at - start)
    return at


cdef inline Py_ssize_t text(const char* body, Py_ssize_t at, Py_ssize_t end, Span* span) noexcept nogil:
    """Past a string that a key would write alike; -1 where there is none."""
    cdef Py_ssize_t start = at + 1
    if at >= end or body[at] != c'"':
        return -1
    at = start
    while at < end and not _special[<uint8_t> body[at]]:
        at += 1
    if at >= end or body[at] != c'"':
        return -1
    span.start, span.size = <uint32_t> start, <uint32_t> (at - start)
    return at + 1


cdef Py_ssize_t items(
    const char* body, const Hole* hole, bint texts, Span* spans, Py_ssize_t most
) noexcept nogil:
    """How many items a list has, `most` at most; -1 where it is not what a key column is."""
    cdef Py_ssize_t at = hole.start, end = hole.end, n = 0
    while n < most:
        at = blank(body, at, end)
        at = text(body, at, end, &spans[n]) if texts else integer(body, at, end, &spans[n])
        if at < 0:
            return -1
        n += 1
        at = blank(body, at, end)
        if at == end:
            return n
        if body[at] != c",":
            return -1
        at += 1
    return -1


cdef Py_ssize_t skeleton_of(
    const char* body, Py_ssize_t size, char* out, Hole* holes, int* n_holes
) noexcept nogil:
    """Write the body less what is in its holes; its size, -1 where it has too many or is too long."""
    cdef const char* at = body
    cdef const char* end = body + size
    cdef const char* start = <const char*> memmem(body, size, MEMBER, 10)
    cdef const char* stop
    cdef Py_ssize_t used = 0, piece
    n_holes[0] = 0
    if start == NULL:
        return -1
    while True:
        start = <const char*> memchr(start, c"[", end - start)
        piece = (end if start == NULL else start + 1) - at
        if used + piece > MAX_SKELETON:
            return -1
        memcpy(out + used, at, piece)
        used += piece
        if start == NULL:
            return used
        stop = <const char*> memchr(start, c"]", end - start)
        if stop == NULL or n_holes[0] == MAX_COLUMNS:
            return -1
        holes[n_holes[0]] = Hole(start + 1 - body, stop - body)
        n_holes[0] += 1
        at = start = stop


@cython.final
cdef class Shape:
    cdef object known
    cdef int columns
    cdef uint8_t[MAX_COLUMNS] texts
    cdef list reads                 # (prefix, columns in the key's order)
    cdef Py_ssize_t prefixes        # bytes of all prefixes and bars


@cython.final
cdef class ShapeTable:
    """See the twin."""

    cdef dict shapes
    cdef char* scratch              # MAX_SKELETON bytes
    cdef Span* spans
    cdef Py_ssize_t most_spans

    def __cinit__(self):
        self.shapes = {}
        self.scratch = <char*> realloc(NULL, MAX_SKELETON)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.scratch)
        free(self.spans)

    def __len__(self):
        return len(self.shapes)

    def skeleton(self, bytes body):
        cdef Hole holes[MAX_COLUMNS]
        cdef int n_holes
        cdef Py_ssize_t size
        if PyBytes_GET_SIZE(body) > MAX_BODY:
            return None
        size = skeleton_of(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), self.scratch, holes, &n_holes)
        return None if size < 0 or not n_holes else PyBytes_FromStringAndSize(self.scratch, size)

    def add(self, bytes skeleton, key_types, reads, known):
        cdef Shape shape = Shape()
        shape.known = known
        shape.columns = len(key_types)
        if not 0 < shape.columns <= MAX_COLUMNS:
            raise ValueError(f"{len(key_types)} key columns: 1 to {MAX_COLUMNS}")
        for c, key_type in enumerate(key_types):
            if key_type not in ("int64", "string"):
                raise ValueError(f"{key_type} keys have no shape")
            shape.texts[c] = key_type == "string"
        shape.reads = [(bytes(prefix), tuple(columns)) for prefix, columns in reads]
        for prefix, columns in shape.reads:
            if any(not 0 <= c < shape.columns for c in columns):
                raise ValueError(f"columns {columns} of {shape.columns}")
            shape.prefixes += len(prefix) + len(columns)
        self.shapes[skeleton] = shape

    def forget(self, bytes skeleton):
        self.shapes.pop(skeleton, None)

    def match(self, bytes body):
        cdef const char* data = PyBytes_AS_STRING(body)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body), n
        cdef Hole holes[MAX_COLUMNS]
        cdef int n_holes
        cdef Shape shape
        if size > MAX_BODY or not self.shapes:
            return None
        size = skeleton_of(data, size, self.scratch, holes, &n_holes)
        if size < 0:
            return None
        shape = self.shapes.get(PyBytes_FromStringAndSize(self.scratch, size))
        if shape is None or shape.columns != n_holes:
            return None
        n = self.columns(shape, data, holes)
        if n < 0:
            return None
        batch = ReadBatch()
        self.write(shape, data, PyBytes_GET_SIZE(body), n, batch_of(batch))
        return shape.known, batch, n

    cdef Py_ssize_t columns(self, Shape shape, const char* body, const Hole* holes) except -2:
        """Fill spans, one column after the other; the number of entities, -1 for no match."""
        cdef Py_ssize_t most = 0, n = 0, found
        cdef Span* spans
        cdef int c
        for c in range(shape.columns):
            most = max(most, (holes[c].end - holes[c].start) // 2 + 1)      # an item and its comma
        most = min(most, MAX_ENTITIES)
        if most * shape.columns > self.most_spans:
            spans = <Span*> realloc(self.spans, most * shape.columns * sizeof(Span))
            if spans == NULL:
                raise MemoryError
            self.spans, self.most_spans = spans, most * shape.columns
        for c in range(shape.columns):
            found = items(body, &holes[c], shape.texts[c], self.spans + c * n, n if c else most)
            if found < 0 or (c and found != n):
                return -1
            n = found
        return n

    cdef int write(
        self, Shape shape, const char* body, Py_ssize_t size, Py_ssize_t n, Batch* out
    ) except -1:
        """The keys of every read. No key takes more than its prefix, its bars and its spans."""
        cdef int picks[MAX_COLUMNS]
        cdef int c, k
        cdef Py_ssize_t i, head
        cdef bytes prefix
        cdef tuple columns
        cdef char* to
        cdef Span* span
        cdef const char* end = body + size
        reserve_keys(out, n * len(shape.reads))
        reserve(&out.text, n * shape.prefixes + size * len(shape.reads) + WORD)
        for prefix, columns in shape.reads:
            head, k = PyBytes_GET_SIZE(prefix), len(columns)
            for c in range(k):
                picks[c] = columns[c]
            for i in range(n):
                to = out.text.data + out.text.size
                to = copied(to, PyBytes_AS_STRING(prefix), head, PyBytes_AS_STRING(prefix) + head)
                for c in range(k):
                    if c:
                        to[0] = c"|"
                        to += 1
                    span = &self.spans[picks[c] * n + i]
                    to = copied(to, body + span.start, span.size, end)
                out.text.size = to - out.text.data
                close_key(out)
        return 0


cdef inline char* copied(char* to, const char* data, Py_ssize_t size, const char* end) noexcept nogil:
    """Some bytes; where no more than a word is wanted and one lies before `end`, that is copied at once.

    Up to WORD bytes after them are overwritten: there is room, and the next part goes there.
    """
    cdef Py_ssize_t i
    if size <= WORD and data + WORD <= end:
        memcpy(to, data, WORD)
    elif size > WORD:
        memcpy(to, data, size)
    else:
        for i in range(size):
            to[i] = data[i]
    return to + size
