# RESP2 as MGET uses it; header only, no I/O, no state: a token that is cut is looked at again from its begin.
#
#     *3\r\n  $5\r\nhello\r\n  $-1\r\n  $0\r\n\r\n     a head, then elements: string, none, empty string
#     -ERR text\r\n                                  instead of it all
#
# Nothing else is an answer to MGET. A head is at most MAX_HEAD bytes, so looking again costs nothing.

from libc.stdint cimport int64_t
from libc.string cimport memchr

cdef enum:
    MAX_HEAD = 14                   # marker, sign, 10 digits, \r\n
    MAX_ERROR = 4096                # bytes of an error's text
    MAX_BULK = 512 * 1024 * 1024    # Redis's own limit

cdef enum:                          # what parse() returns instead of a number of bytes
    MORE = 0
    BROKEN = -1

cdef enum Kind:
    ARRAY
    STRING
    NONE
    ERROR

cdef struct Token:
    Kind kind
    const char* data                # STRING, ERROR: the text
    Py_ssize_t size                 # of data, or elements of the ARRAY; with MORE: its bytes, if known


cdef inline Py_ssize_t parse_number(const char* data, Py_ssize_t size, int64_t* number) noexcept nogil:
    """The number that ends with \\r\\n; returns the bytes it takes, MORE or BROKEN."""
    cdef Py_ssize_t i = 0, begin
    cdef int64_t value = 0
    cdef bint negative = size > 0 and data[0] == c"-"
    begin = i = 1 if negative else 0
    while i < size and c"0" <= data[i] <= c"9":
        value = value * 10 + (data[i] - c"0")
        i += 1
        if i > MAX_HEAD - 3:
            return BROKEN
    if i > begin and data[begin] == c"0" and (negative or i > begin + 1):
        return BROKEN           # -0, 01
    if i < size and (i == begin or data[i] != c"\r"):
        return BROKEN
    if i + 1 < size and data[i + 1] != c"\n":
        return BROKEN
    if i + 1 >= size:
        return MORE
    number[0] = -value if negative else value
    return i + 2


cdef inline Py_ssize_t parse_error(const char* data, Py_ssize_t size, Token* token) noexcept nogil:
    cdef Py_ssize_t looked = size if size < MAX_ERROR else MAX_ERROR
    cdef const char* end = <const char*> memchr(data, c"\r", looked)
    if memchr(data, c"\n", looked if end == NULL else end - data) != NULL:
        return BROKEN
    if end == NULL:
        return BROKEN if size >= MAX_ERROR else MORE
    if end + 1 == data + size:
        return MORE
    if end[1] != c"\n":
        return BROKEN
    token.kind, token.data, token.size = ERROR, data + 1, end - data - 1
    return end - data + 2


cdef inline Py_ssize_t parse(const char* data, Py_ssize_t size, Token* token) noexcept nogil:
    """The first token of data; returns the bytes it takes, MORE or BROKEN."""
    cdef int64_t number = 0
    cdef Py_ssize_t head
    token.size = 0
    if size == 0:
        return MORE
    if data[0] == c"-":
        return parse_error(data, size, token)
    if data[0] != c"$" and data[0] != c"*":
        return BROKEN
    head = parse_number(data + 1, size - 1, &number)
    if head <= 0:
        return head
    head += 1
    if data[0] == c"*":
        token.kind, token.size = ARRAY, number
        return head if number >= 0 else BROKEN
    if number == -1:
        token.kind, token.data = NONE, NULL
        return head
    if number < 0 or number > MAX_BULK:
        return BROKEN
    if size < head + number + 2:
        token.size = head + number + 2
        return MORE
    if data[head + number] != c"\r" or data[head + number + 1] != c"\n":
        return BROKEN
    token.kind, token.data, token.size = STRING, data + head, number
    return head + number + 2
