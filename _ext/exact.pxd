# Exact sums, see exact.h, and their bytes in tiles; header only.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from buffers cimport Buffer, reserve
from varint cimport Reader, put_signed, put_unsigned, take, take_signed, take_unsigned


cdef extern from "exact.h" nogil:
    ctypedef struct Exact "fs_exact":
        int64_t nans
        int64_t plus
        int64_t minus
        int64_t* digits

    ctypedef struct Big "fs_big":
        bint negative
        int n
        int64_t e

    bint exact_init "fs_exact_init"(Exact* x)
    void exact_reset "fs_exact_reset"(Exact* x)
    void exact_add_double "fs_exact_add_double"(Exact* x, double value, bint squared)
    void exact_add_int "fs_exact_add_int"(Exact* x, int64_t value, bint squared)
    void exact_put_double "fs_exact_put_double"(Exact* x, double value, bint squared, int times)
    void exact_put_int "fs_exact_put_int"(Exact* x, int64_t value, bint squared, int times)
    void exact_add_words "fs_exact_add_words"(Exact* x, uint64_t high, uint64_t low, bint negative, int64_t e)
    void exact_merge "fs_exact_merge"(Exact* x, const Exact* y)
    bint exact_finite "fs_exact_finite"(const Exact* x)
    double exact_round "fs_exact_round"(Exact* x)
    bint exact_int64 "fs_exact_int64"(Exact* x, int64_t* out)
    double exact_variance "fs_variance"(Exact* squares, Exact* sum, int64_t n, Exact* work)
    void exact_big "fs_exact_big"(Exact* x, Big* big)
    bint exact_small "fs_exact_small"(const Exact* x, uint64_t* m, int64_t* e, int* size, int* negative)
    uint64_t big_bits "fs_big_bits"(const Big* big, int64_t start, int count)
    int64_t big_length "fs_big_length"(const Big* big)
    int64_t big_zeros "fs_big_zeros"(const Big* big)


cdef inline int put_exact(Buffer* out, Exact* x) except -1 nogil:
    """Append: uint size of m << 2 | negative << 1 | others, their counts, int e, m."""
    cdef uint64_t small[2]
    cdef int64_t e = 0
    cdef int size = 0, negative = 0
    reserve(out, 80)
    if not exact_small(x, small, &e, &size, &negative):
        return put_large(out, x)
    put_head(out, x, size, negative)
    if size:
        put_signed(out, e)
        memcpy(out.data + out.size, small, 16)
        out.size += size
    return 0


cdef inline void put_head(Buffer* out, const Exact* x, int64_t size, bint negative) noexcept nogil:
    cdef bint others = not exact_finite(x)
    put_unsigned(out, <uint64_t> size << 2 | <uint64_t> negative << 1 | others)
    if others:
        put_unsigned(out, x.nans)
        put_unsigned(out, x.plus)
        put_unsigned(out, x.minus)


cdef inline int put_large(Buffer* out, Exact* x) except -1 nogil:
    cdef Big big
    cdef int64_t zeros = 0, size = 0, j
    exact_big(x, &big)
    if big.n:
        zeros = big_zeros(&big)
        size = (big_length(&big) - zeros + 7) >> 3
    reserve(out, 60 + size)
    put_head(out, x, size, big.n and big.negative)
    if size:
        put_signed(out, big.e + zeros)
        for j in range(size):
            out.data[out.size + j] = <char> big_bits(&big, zeros + 8 * j, 8)
        out.size += size
    return 0


cdef inline uint64_t little(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """An integer of up to 8 bytes."""
    cdef uint64_t out = 0
    cdef Py_ssize_t i
    for i in range(size):
        out |= <uint64_t> data[i] << (8 * i)
    return out


cdef inline bint take_exact(Reader* data, Exact* x, int64_t lowest, int64_t top) noexcept nogil:
    """Add what put_exact wrote to x, unless that is NULL; whether it is such a sum, of 2^lowest to 2^top."""
    cdef uint64_t head, nans = 0, plus = 0, minus = 0
    cdef int64_t e, size, part, at = 0
    cdef const uint8_t* m
    if not take_unsigned(data, &head, 0):
        return False
    size = <int64_t> (head >> 2)
    if head & 1:
        if not (
            take_unsigned(data, &nans, <uint64_t> 1 << 48) and take_unsigned(data, &plus, <uint64_t> 1 << 48)
            and take_unsigned(data, &minus, <uint64_t> 1 << 48)
        ) or not (nans | plus | minus):
            return False
        if x != NULL:
            x.nans += nans
            x.plus += plus
            x.minus += minus
    if not size:
        return not head & 2
    if not take_signed(data, &e) or e < lowest or e > top or size > 600 or e + 8 * size > top:
        return False
    m = take(data, size)
    if m == NULL or not m[0] & 1 or not m[size - 1]:
        return False
    if x == NULL:
        return True
    while at < size:
        part = min(size - at, 15)
        exact_add_words(
            x, little(m + at + 8, part - 8) if part > 8 else 0, little(m + at, min(part, 8)), head & 2, e + 8 * at)
        at += part
    return True
