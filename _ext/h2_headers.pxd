# Header fields between libnghttp2 and Python (header-only).
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport uint8_t, uintptr_t
from libc.string cimport memchr, memcmp, memcpy

from nghttp2 cimport (
    NGHTTP2_NV_FLAG_NONE,
    nghttp2_check_header_name,
    nghttp2_check_header_value,
    nghttp2_nv,
    nghttp2_rcbuf,
    nghttp2_rcbuf_decref,
    nghttp2_rcbuf_get_buf,
    nghttp2_rcbuf_incref,
    nghttp2_vec,
)

cdef enum:
    MAX_NV = 64             # :status, content-type, date, content-length + 60 of the handler
    BOMB_FACTOR = 16        # header lists this much over the limit end the connection
    CACHE_SLOTS = 64        # a power of two
    CACHED_MAX = 256        # bytes of name + value; longer pairs are not kept

# ---- in ------------------------------------------------------------------------------------------

# (name buffer, value buffer) -> (bytes, bytes). HPACK's tables yield the same two buffers for a
# repeated header, so it costs no objects. Slots hold references: an address is not reused meanwhile.
ctypedef struct PairCache:
    nghttp2_rcbuf *names[CACHE_SLOTS]
    nghttp2_rcbuf *values[CACHE_SLOTS]
    PyObject *pairs[CACHE_SLOTS]


cdef inline tuple cached_pair(PairCache *self, nghttp2_rcbuf *name, nghttp2_rcbuf *value):
    cdef uintptr_t mixed = (<uintptr_t>name >> 4) ^ ((<uintptr_t>value >> 4) * 31)
    cdef size_t slot = (mixed ^ (mixed >> 8)) & (CACHE_SLOTS - 1)
    if self.names[slot] == name and self.values[slot] == value:
        return <tuple>self.pairs[slot]
    cdef nghttp2_vec key = nghttp2_rcbuf_get_buf(name), text = nghttp2_rcbuf_get_buf(value)
    cdef tuple pair = (
        PyBytes_FromStringAndSize(<char *>key.base, key.len),
        PyBytes_FromStringAndSize(<char *>text.base, text.len),
    )
    if key.len + text.len <= CACHED_MAX:
        clear_slot(self, slot)
        nghttp2_rcbuf_incref(name)
        nghttp2_rcbuf_incref(value)
        Py_INCREF(pair)
        self.names[slot] = name
        self.values[slot] = value
        self.pairs[slot] = <PyObject *>pair
    return pair


cdef inline void clear_slot(PairCache *self, size_t slot) noexcept:
    if self.names[slot] is not NULL:
        nghttp2_rcbuf_decref(self.names[slot])
        nghttp2_rcbuf_decref(self.values[slot])
        Py_XDECREF(self.pairs[slot])
        self.names[slot] = NULL


cdef inline void clear_cache(PairCache *self) noexcept:
    cdef size_t slot
    for slot in range(CACHE_SLOTS):
        clear_slot(self, slot)


cdef inline bint equals(nghttp2_vec text, const char *literal, size_t size) noexcept:
    return text.len == size and memcmp(text.base, literal, size) == 0


cdef inline Py_ssize_t decimal(nghttp2_vec text) noexcept:
    """Its value; -1 when it is not 1..18 digits (libnghttp2 rejects those that are no number)."""
    cdef Py_ssize_t value = 0
    cdef size_t i
    if text.len == 0 or text.len > 18:
        return -1
    for i in range(text.len):
        if not c'0' <= text.base[i] <= c'9':
            return -1
        value = value * 10 + (text.base[i] - c'0')
    return value


cdef inline str method_of(nghttp2_vec text):
    if equals(text, "POST", 4):
        return "POST"
    if equals(text, "GET", 3):
        return "GET"
    return PyUnicode_DecodeLatin1(<char *>text.base, text.len, NULL)


cdef inline tuple split_target(nghttp2_vec text):
    """(path, query) of a :path."""
    cdef const char *start = <const char *>text.base
    cdef const char *end = start + text.len
    cdef const char *mark = <const char *>memchr(start, c'?', text.len)
    if mark is NULL:
        return PyUnicode_DecodeLatin1(start, text.len, NULL), ""
    return (
        PyUnicode_DecodeLatin1(start, mark - start, NULL),
        PyUnicode_DecodeLatin1(mark + 1, end - mark - 1, NULL),
    )


# ---- out -----------------------------------------------------------------------------------------


cdef inline void set_nv(
    nghttp2_nv *nv, const char *name, size_t n_name, const char *value, size_t n_value
) noexcept:
    nv.name = <uint8_t *>name
    nv.namelen = n_name
    nv.value = <uint8_t *>value
    nv.valuelen = n_value
    nv.flags = NGHTTP2_NV_FLAG_NONE


cdef inline int set_checked(nghttp2_nv *nv, bytes name, bytes value) except -1:
    set_nv(nv, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name),
           PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if not nghttp2_check_header_name(nv.name, nv.namelen):
        raise ValueError(f"response header name {name!r} is not a token")
    return check_value(name, value)


cdef inline int check_value(bytes name, bytes value) except -1:
    if not nghttp2_check_header_value(<const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)):
        raise ValueError(f"response header {name!r} holds control characters")
    return 0


cdef inline size_t put_decimal(char *to, Py_ssize_t value) noexcept:
    """A number that is not negative; how many digits it has."""
    cdef char[24] digits
    cdef size_t n = 0
    while True:
        n += 1
        digits[24 - n] = <char>(c"0" + value % 10)
        value //= 10
        if value == 0:
            break
    memcpy(to, digits + 24 - n, n)
    return n


cdef inline int fill_head(
    nghttp2_nv *nva, object response, bytes content_type, bytes date, Py_ssize_t size, char *scratch,
    type checked
) except -1:
    """Fill `nva` (MAX_NV long) from `response`, whose headers need no check where they are `checked`, and its
    `content_type`, which needs none; returns how many. It borrows from the response, `content_type`,
    `date` and `scratch` (32 bytes: 8 for the status, 24 for the length)."""
    cdef int n = 1, status = response.status
    cdef bytes key, text
    cdef tuple pair, known
    if not 200 <= status <= 599:
        raise ValueError(f"response status {status} is not within 200..599")
    headers = response.headers
    if len(headers) > MAX_NV - 4:
        raise ValueError(f"more than {MAX_NV - 4} response headers")
    put_decimal(scratch, status)
    set_nv(&nva[0], ":status", 7, scratch, 3)
    if content_type:
        set_nv(&nva[1], "content-type", 12, PyBytes_AS_STRING(content_type), PyBytes_GET_SIZE(content_type))
        n = 2
    if type(headers) is checked:
        known = <tuple>headers
        for pair in known:
            key, text = pair
            set_nv(&nva[n], PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
                   PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
            n += 1
    else:
        for name, value in headers:
            set_checked(&nva[n], name, value)
            n += 1
    set_nv(&nva[n], "date", 4, PyBytes_AS_STRING(date), PyBytes_GET_SIZE(date))
    n += 1
    if status != 204:
        set_nv(&nva[n], "content-length", 14, scratch + 8, put_decimal(scratch + 8, size))
        n += 1
    return n
