"""Online keys, a batch at a time; fastserve/codec/keys_py.py is the readable twin.

    <view id, base 36>:<value>|<value>…        b"1a:1042", b"7:a%7Cb|-1"

Each join key column becomes one Source: a Python list, or the plain memory of a numpy or Arrow array.
Keys are written row by row into the batch's text. A value that is not exactly what its key type wants goes
to the twin's key_text, which either writes it (a numpy scalar, a subclass) or says what is wrong.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc

from buffers cimport Buffer, put, reserve
from read_batch cimport Batch, add_key, batch_of, close_key, reserve_keys

import numpy as np
import pyarrow as pa

from fastserve._native.batch import ReadBatch
from fastserve.codec.keys_py import as_list, base36, check_columns, check_types, decode_key
from fastserve.codec.keys_py import key_text, place

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size)
    void PyErr_Clear()

cdef enum KeyType:
    STRING
    INT64
    BOOL
    BYTES

cdef enum Form:
    LIST    # a Python list
    INTS    # int64 values
    SPANS   # int64 offsets into bytes

cdef struct Source:
    Form form
    KeyType key_type
    PyObject* values          # LIST; borrowed from the batch's `held`, like the memory below
    const int64_t* ints       # INTS: the values; SPANS: n + 1 offsets
    const char* data          # SPANS

cdef dict _KEY_TYPES = {"string": STRING, "int64": INT64, "bool": BOOL, "bytes": BYTES}
cdef const char* _HEX = b"0123456789ABCDEF"
cdef object _INT64_MAX = 2**63 - 1

# Which bytes are written %XX, per key type: [0] strings, [1] bytes.
cdef uint8_t[2][256] _escaped
cdef int _c
for _c in range(256):
    _escaped[0][_c] = _c < 0x20 or _c == 0x7F or _c == ord("%") or _c == ord("|")
    _escaped[1][_c] = _c < 0x21 or _c > 0x7E or _c == ord("%") or _c == ord("|")


# ---- writers -----------------------------------------------------------------------------------


cdef inline int put_int(Buffer* out, int64_t value) except -1:
    """Decimal text; 20 bytes hold every int64."""
    cdef char[20] digits
    cdef int at = 20
    cdef uint64_t rest = <uint64_t> value
    if value < 0:
        rest = 0 - rest
    while True:
        at -= 1
        digits[at] = <char> (c"0" + rest % 10)
        rest //= 10
        if rest == 0:
            break
    if value < 0:
        at -= 1
        digits[at] = c"-"
    return put(out, digits + at, 20 - at)


cdef inline int put_escaped(Buffer* out, const char* data, Py_ssize_t size, bint raw) except -1:
    cdef Py_ssize_t i
    cdef uint8_t byte
    reserve(out, 3 * size)
    for i in range(size):
        byte = <uint8_t> data[i]
        if _escaped[raw][byte]:
            out.data[out.size] = c"%"
            out.data[out.size + 1] = _HEX[byte >> 4]
            out.data[out.size + 2] = _HEX[byte & 15]
            out.size += 3
        else:
            out.data[out.size] = <char> byte
            out.size += 1
    return 0


cdef inline bint put_object(Buffer* out, object value, KeyType key_type) except -1:
    """Write a value of exactly the wanted type; False, with nothing written, for any other."""
    cdef int overflow = 0
    cdef long long number
    cdef const char* text
    cdef Py_ssize_t size
    if key_type == INT64 and PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return False
        put_int(out, number)
        return True
    if key_type == STRING and PyUnicode_CheckExact(value):
        text = PyUnicode_AsUTF8AndSize(value, &size)
        if text == NULL:
            PyErr_Clear()
            return False
        put_escaped(out, text, size, False)
        return True
    if key_type == BYTES and type(value) is bytes:
        put_escaped(out, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), True)
        return True
    if key_type == BOOL and (value is True or value is False):
        put(out, b"t" if value is True else b"f", 1)
        return True
    return False


# ---- columns -----------------------------------------------------------------------------------


cdef object plain(object column, KeyType key_type, str where):
    """A list, a numpy int64 array, or a pyarrow large_string or large_binary array without nulls."""
    if isinstance(column, list):
        return column
    if isinstance(column, np.ndarray) and key_type == INT64:
        if column.ndim == 1 and column.dtype.kind in "iu":
            if column.dtype.kind == "i" or not column.size or column.max() <= _INT64_MAX:
                return np.ascontiguousarray(column, np.int64)
    elif isinstance(column, (pa.Array, pa.ChunkedArray)) and not column.null_count:
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
            kind = column.type
        found = arrow_plain(column, kind, key_type)
        if found is not None:
            return found
    return as_list(column, where)


cdef object arrow_plain(object column, object kind, KeyType key_type):
    """The same for an Arrow column, None where the list has to do."""
    target = None
    if column.null_count:
        return None
    if key_type == INT64 and pa.types.is_integer(kind):
        try:
            return np.ascontiguousarray(column.cast(pa.int64()).to_numpy())
        except pa.ArrowInvalid:  # does not fit; the list tells which
            return None
    if key_type == STRING and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        target = pa.large_string()
    if key_type == BYTES and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        target = pa.large_binary()
    if target is None:
        return None
    column = column.cast(target)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


cdef int describe(Source* source, object column, list held) except -1:
    """Fill in a Source; `held` keeps alive what it points to."""
    cdef const int64_t[::1] ints
    cdef const uint8_t[::1] data
    held.append(column)
    if isinstance(column, list):
        source.form = LIST
        source.values = <PyObject*> column
        return 0
    if isinstance(column, np.ndarray):
        source.form = INTS
        ints = column
        held.append(ints)
        source.ints = &ints[0] if ints.shape[0] else NULL
        return 0
    source.form = SPANS
    if not len(column):
        return 0
    _, offsets, bytes_ = column.buffers()
    ints = np.frombuffer(offsets, np.int64)
    source.ints = &ints[0] + <Py_ssize_t> column.offset
    held.append(ints)
    if bytes_ is not None and bytes_.size:
        data = np.frombuffer(bytes_, np.uint8)
        held.append(data)
        source.data = <const char*> &data[0]
    return 0


# ---- encoder -----------------------------------------------------------------------------------


cdef class KeyEncoder:
    """Encodes the keys of one view version; see the twin for arguments and errors."""

    cdef readonly object view_id
    cdef readonly tuple key_types
    cdef readonly bytes prefix

    def __init__(self, view_id, key_types):
        self.view_id = view_id
        self.key_types = check_types(view_id, key_types)
        self.prefix = base36(view_id).encode() + b":"

    def encode(self, columns, Py_ssize_t n, names=None):
        """The keys of n entities, as a list of bytes."""
        batch = ReadBatch()
        self.encode_into(batch, columns, n, names)
        return batch.keys()

    def encode_into(self, batch, columns, Py_ssize_t n, names=None):
        """Append the keys of n entities to a batch."""
        cdef list plains, held = []
        cdef Py_ssize_t i, k = len(self.key_types)
        cdef Batch* out = batch_of(batch)
        cdef Source* sources
        reserve_keys(out, n)
        if not k and not len(columns):
            for _ in range(n):
                add_key(out, PyBytes_AS_STRING(self.prefix), PyBytes_GET_SIZE(self.prefix))
            return
        if len(columns) != k:
            check_columns(self.key_types, columns, n, names)
        plains = [
            plain(columns[i], _KEY_TYPES[self.key_types[i]], place(names, i)) for i in range(k)
        ]
        for column in plains:
            if len(column) != n:
                check_columns(self.key_types, columns, n, names)
        sources = <Source*> malloc(k * sizeof(Source))
        if sources == NULL:
            raise MemoryError
        try:
            for i in range(k):
                sources[i] = Source(LIST, _KEY_TYPES[self.key_types[i]], NULL, NULL, NULL)
                describe(&sources[i], plains[i], held)
            self.write(out, sources, k, n, names)
        finally:
            free(sources)

    cdef int write(self, Batch* out, Source* sources, Py_ssize_t k, Py_ssize_t n, object names) except -1:
        """reserve_keys has made room for n."""
        cdef Py_ssize_t i, c, head = PyBytes_GET_SIZE(self.prefix)
        cdef const char* prefix = PyBytes_AS_STRING(self.prefix)
        for i in range(n):
            put(&out.text, prefix, head)
            for c in range(k):
                if c:
                    put(&out.text, b"|", 1)
                self.write_value(&out.text, &sources[c], c, i, names)
            close_key(out)
        return 0

    cdef int write_value(
        self, Buffer* out, Source* source, Py_ssize_t c, Py_ssize_t i, object names
    ) except -1:
        cdef int64_t start
        cdef bytes text
        if source.form == INTS:
            return put_int(out, source.ints[i])
        if source.form == SPANS:
            start = source.ints[i]
            return put_escaped(
                out, source.data + start, source.ints[i + 1] - start, source.key_type == BYTES
            )
        value = (<list> source.values)[i]
        if not put_object(out, value, source.key_type):
            text = key_text(value, self.key_types[c], names, c, i)
            put(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        return 0

    def decode(self, key):
        """The join key values of a key, in canonical order."""
        return decode_key(self.prefix, self.key_types, key)
