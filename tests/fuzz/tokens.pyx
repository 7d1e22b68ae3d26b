"""_ext/resp_parse.pxd with nothing around it: each look is at a copy of exactly that many bytes."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from resp_parse cimport ARRAY, BROKEN, ERROR, MORE, NONE, STRING, Token, parse

cdef enum:
    LOOKS = 12      # cuts that are tried of a token


cdef struct Look:
    Py_ssize_t took
    Token token


cdef Look look(const char* data, Py_ssize_t size) except *:
    cdef Look found
    cdef char* copy = <char*> malloc(size)
    if copy == NULL:
        raise MemoryError
    if size:
        memcpy(copy, data, size)
    found.took = parse(copy, size, &found.token)
    if found.took > 0 and found.token.kind in (STRING, ERROR):
        assert copy < found.token.data <= copy + size
        assert found.token.data + found.token.size + 2 <= copy + size
        found.token.data = data + (found.token.data - copy)
    free(copy)
    return found


cdef int check_cuts(const char* data, Py_ssize_t size, Look whole) except -1:
    """A token is the same whatever comes after it, and never seen before it has come."""
    cdef Py_ssize_t cut, last = size if whole.took <= 0 else whole.took
    cdef Py_ssize_t step = last // LOOKS + 1
    cdef Look part
    for cut in range(0, last, step):
        part = look(data, cut)
        if whole.took == BROKEN:
            assert part.took in (MORE, BROKEN), "a broken token was taken when cut"
        else:
            assert part.took == MORE, "cut, it is taken for something"
            if part.token.size and whole.took != MORE:
                assert part.token.size == whole.took, "a wrong size is announced"
    if whole.took > 0:
        part = look(data, whole.took)
        assert part.took == whole.took and part.token.kind == whole.token.kind
        assert part.token.size == whole.token.size
    return 0


def tokens(bytes data):
    """What parse() reads of it, one after the other; the last is "more" or "broken"."""
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef Py_ssize_t at = 0, size = PyBytes_GET_SIZE(data)
    cdef Look found
    read = []
    while True:
        found = look(text + at, size - at)
        check_cuts(text + at, size - at, found)
        if found.took == MORE or found.took == BROKEN:
            read.append("more" if found.took == MORE else "broken")
            return read
        at += found.took
        if found.token.kind == ARRAY:
            read.append(found.token.size)
        elif found.token.kind == NONE:
            read.append(None)
        else:
            text_ = found.token.data[:found.token.size]
            read.append(text_ if found.token.kind == STRING else (text_,))
