# LEB128 numbers of tile rows, and a reader that never leaves its bytes; header only. aggregations/wire_py.py is the twin.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from buffers cimport Buffer


cdef struct Reader:
    const uint8_t* at
    const uint8_t* end


cdef inline void put_unsigned(Buffer* out, uint64_t value) noexcept nogil:
    """At most 10 bytes, which were reserved."""
    while value >= 0x80:
        out.data[out.size] = <char> (value & 0x7F | 0x80)
        out.size += 1
        value >>= 7
    out.data[out.size] = <char> value
    out.size += 1


cdef inline void put_signed(Buffer* out, int64_t value) noexcept nogil:
    """0, -1, 1, -2, … as 0, 1, 2, 3, …"""
    put_unsigned(out, <uint64_t> value << 1 ^ <uint64_t> (value >> 63))


cdef inline bint take_unsigned(Reader* data, uint64_t* value, uint64_t limit) noexcept nogil:
    """Read a number; whether there is one, and below limit, unless that is 0."""
    cdef int shift = 0
    cdef uint64_t byte
    value[0] = 0
    while data.at < data.end and shift < 70:
        byte = data.at[0]
        data.at += 1
        if (shift == 63 and byte > 1) or (shift and not byte):      # too large; or it could be shorter
            return False
        value[0] |= (byte & 0x7F) << shift
        if byte < 0x80:
            return limit == 0 or value[0] < limit
        shift += 7
    return False


cdef inline bint take_signed(Reader* data, int64_t* value) noexcept nogil:
    cdef uint64_t word
    if not take_unsigned(data, &word, 0):
        return False
    value[0] = <int64_t> (word >> 1 ^ (0 - (word & 1)))
    return True


cdef inline const uint8_t* take(Reader* data, int64_t size) noexcept nogil:
    """The next bytes, NULL if there are not so many; size is not negative."""
    cdef const uint8_t* at = data.at
    if size > data.end - at:
        return NULL
    data.at += size
    return at
