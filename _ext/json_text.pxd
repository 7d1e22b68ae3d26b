# JSON text of values, the way orjson writes them. Header only; every function writes at `to`, where there is room, and
# gives the place after what it wrote.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    INT_BYTES = 20          # of any int64, at most
    TIME_BYTES = 32         # "+294247-01-10T04:00:54.775807Z"

cdef extern from * nogil:
    """
    #include <stdint.h>
    /* of the years 1 to 9999 */
    #define FIRST_TIME INT64_C(-62135596800000000)
    #define LAST_TIME INT64_C(253402300799999999)
    static const char FS_PAIRS[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354"
        "55565758596061626364656667686970717273747576777879808182838485868788899091929394959697989900";
    static const char FS_LOWER_HEX[] = "0123456789abcdef";
    """
    const int64_t FIRST_TIME
    const int64_t LAST_TIME
    const char* FS_PAIRS
    const char* FS_LOWER_HEX


cdef inline char* put_bytes(char* to, const char* data, Py_ssize_t size) noexcept nogil:
    memcpy(to, data, size)
    return to + size


cdef inline char* put_null(char* to) noexcept nogil:
    memcpy(to, b"null", 4)
    return to + 4


cdef inline char* put_int(char* to, int64_t value) noexcept nogil:
    cdef char[INT_BYTES] digits
    cdef int at = INT_BYTES
    cdef uint64_t rest = <uint64_t> value
    if value < 0:
        rest = 0 - rest
        to[0] = c"-"
        to += 1
    while rest >= 100:
        at -= 2
        memcpy(digits + at, FS_PAIRS + 2 * (rest % 100), 2)
        rest //= 100
    if rest >= 10:
        at -= 2
        memcpy(digits + at, FS_PAIRS + 2 * rest, 2)
    else:
        at -= 1
        digits[at] = <char> (c"0" + rest)
    memcpy(to, digits + at, INT_BYTES - at)
    return to + INT_BYTES - at


cdef inline void put_pair(char* to, uint64_t value) noexcept nogil:
    memcpy(to, FS_PAIRS + 2 * value, 2)


cdef inline void put_date(char* to, int64_t days) noexcept nogil:
    """YYYY-MM-DD of a day since 1970, of the years 1 to 9999 (Hinnant, "chrono-compatible low-level date algorithms")."""
    cdef uint64_t shifted = <uint64_t> (days + 719_468), era = shifted // 146_097
    cdef uint64_t doe = shifted - era * 146_097
    cdef uint64_t yoe = (doe - doe // 1_460 + doe // 36_524 - doe // 146_096) // 365
    cdef uint64_t doy = doe - (365 * yoe + yoe // 4 - yoe // 100), mp = (5 * doy + 2) // 153
    cdef uint64_t month = mp + 3 if mp < 10 else mp - 9, year = yoe + era * 400 + (month <= 2)
    put_pair(to, year // 100)
    put_pair(to + 2, year % 100)
    to[4] = to[7] = c"-"
    put_pair(to + 5, month)
    put_pair(to + 8, doy - (153 * mp + 2) // 5 + 1)


cdef inline char* put_near_time(char* to, int64_t us) noexcept nogil:
    """A time between FIRST_TIME and LAST_TIME, microseconds since 1970; the fraction only where there is one."""
    cdef uint64_t since = <uint64_t> (us - FIRST_TIME), day = since // 1_000_000 // 86_400
    cdef uint64_t second = since // 1_000_000 - day * 86_400, fraction = since % 1_000_000
    to[0] = c'"'
    put_date(to + 1, <int64_t> day - 719_162)
    to[11] = c"T"
    put_pair(to + 12, second // 3_600)
    put_pair(to + 15, second // 60 % 60)
    put_pair(to + 18, second % 60)
    to[14] = to[17] = c":"
    to += 20
    if fraction:
        to[0] = c"."
        put_pair(to + 1, fraction // 10_000)
        put_pair(to + 3, fraction // 100 % 100)
        put_pair(to + 5, fraction % 100)
        to += 7
    to[0] = c"Z"
    to[1] = c'"'
    return to + 2


cdef inline char* put_far_time(char* to, int64_t us) noexcept nogil:
    """Any other time: a year beyond 0 to 9999 has a sign and six digits. In 400 years the calendar repeats itself."""
    cdef int64_t cycles = us // 1_000_000 // 86_400 // 146_097, year
    cdef int64_t within = <int64_t> (<uint64_t> us - <uint64_t> cycles * 146_097 * 86_400 * 1_000_000)
    cdef char* end = put_near_time(to + 3, within)
    year = (to[4] - c"0") * 1_000 + (to[5] - c"0") * 100 + (to[6] - c"0") * 10 + (to[7] - c"0") + 400 * cycles
    if year == 0:
        end = put_near_time(to, within)
        memcpy(to + 1, b"0000", 4)
        return end
    to[0] = c'"'
    to[1] = c"+" if year > 0 else c"-"
    year = year if year > 0 else -year
    put_pair(to + 2, year // 10_000)
    put_pair(to + 4, year // 100 % 100)
    put_pair(to + 6, year % 100)
    return end


cdef inline char* put_time(char* to, int64_t us) noexcept nogil:
    """A time, microseconds since 1970, as timeutil.format_timestamp writes it."""
    return put_near_time(to, us) if FIRST_TIME <= us <= LAST_TIME else put_far_time(to, us)


cdef inline char* put_text(char* to, const char* data, Py_ssize_t size) noexcept nogil:
    """A text that is UTF-8; six bytes for each of its own are enough."""
    cdef Py_ssize_t i
    cdef uint8_t byte
    to[0] = c'"'
    to += 1
    for i in range(size):
        byte = <uint8_t> data[i]
        if byte >= 0x20 and byte != c'"' and byte != c"\\":
            to[0] = <char> byte
            to += 1
            continue
        to[0] = c"\\"
        to += 1
        if byte == c"\n":
            to[0] = c"n"
        elif byte == c"\t":
            to[0] = c"t"
        elif byte == c"\r":
            to[0] = c"r"
        elif byte == 8:
            to[0] = c"b"
        elif byte == 12:
            to[0] = c"f"
        elif byte < 0x20:
            memcpy(to, b"u00", 3)
            to[3] = FS_LOWER_HEX[byte >> 4]
            to[4] = FS_LOWER_HEX[byte & 15]
            to += 4
        else:
            to[0] = <char> byte
        to += 1
    to[0] = c'"'
    return to + 1
