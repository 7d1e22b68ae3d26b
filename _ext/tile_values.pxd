# Values of events as states compare and keep them; header only. aggregations/values_py.py is the twin.

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from arrow cimport BLOB, FIXED, ArrowArray, Column, attach, bit
from varint cimport Reader, take, take_unsigned


cdef enum Type:     # fastserve.types.SCALARS' codes
    BOOL = 1
    INT32 = 2
    INT64 = 3
    FLOAT32 = 4
    FLOAT64 = 5
    TIMESTAMP = 6
    STRING = 7
    BYTES = 8


# A value: of fixed width its place in the order of its type (see key_of), else where its bytes lie.
cdef struct Value:
    int64_t key
    const char* data
    int64_t size


cdef inline bint is_heap(int dtype) noexcept nogil:
    return dtype >= STRING


cdef inline bint is_float(int dtype) noexcept nogil:
    return dtype == FLOAT32 or dtype == FLOAT64


cdef inline int width_of(int dtype) noexcept nogil:
    """Bytes of a value; 0 of one with a length."""
    if dtype == BOOL:
        return 1
    if dtype == INT32 or dtype == FLOAT32:
        return 4
    return 0 if is_heap(dtype) else 8


cdef inline int64_t turned(int64_t bits) noexcept nogil:
    """A float's bits as an integer of its order, and back: -0.0 is before 0.0, NaN after infinity."""
    return bits if bits >= 0 else bits ^ <int64_t> 0x7FFFFFFFFFFFFFFF


cdef enum:
    NAN32 = 0x7FC00000

cdef inline int64_t nan_key(int dtype) noexcept nogil:
    return NAN32 if dtype == FLOAT32 else <int64_t> 0x7FF8000000000000


cdef inline int64_t key_of(int dtype, const char* data) noexcept nogil:
    """Of a value of fixed width, from its bytes; every NaN is the one."""
    cdef int64_t wide
    cdef int32_t narrow
    if dtype == BOOL:
        return data[0] != 0
    if dtype == INT32 or dtype == FLOAT32:
        memcpy(&narrow, data, 4)
        if dtype == INT32:
            return narrow
        if (narrow & 0x7FFFFFFF) > 0x7F800000:
            return NAN32
        return narrow if narrow >= 0 else narrow ^ 0x7FFFFFFF
    memcpy(&wide, data, 8)
    if dtype != FLOAT64:
        return wide
    if (wide & <int64_t> 0x7FFFFFFFFFFFFFFF) > <int64_t> 0x7FF0000000000000:
        return nan_key(FLOAT64)
    return turned(wide)


cdef inline uint64_t word_of(int dtype, int64_t key) noexcept nogil:
    """The bytes that such a key is of, as an integer: the low width_of(dtype) of it."""
    if dtype == FLOAT64 or dtype == FLOAT32:
        if dtype == FLOAT32 and key < 0:
            return <uint32_t> (<int32_t> key ^ 0x7FFFFFFF)
        return <uint64_t> turned(key)
    return <uint64_t> key


cdef inline double number_of(int dtype, int64_t key) noexcept nogil:
    """Of a number, its nearest float64: exact but for large int64."""
    cdef uint64_t word
    cdef uint32_t narrow
    cdef double wide
    cdef float single
    if not is_float(dtype):
        return <double> key
    word = word_of(dtype, key)
    if dtype == FLOAT32:
        narrow = <uint32_t> word
        memcpy(&single, &narrow, 4)
        return single
    memcpy(&wide, &word, 8)
    return wide


cdef inline int compare(int dtype, const Value* a, const Value* b) noexcept nogil:
    cdef int order
    if not is_heap(dtype):
        return (a.key > b.key) - (a.key < b.key)
    order = memcmp(a.data, b.data, min(a.size, b.size)) if a.size and b.size else 0
    return order if order else (a.size > b.size) - (a.size < b.size)


cdef inline object attach_values(Column* column, int dtype, array):
    """Point at an Arrow array of such values; what is returned keeps it alive."""
    memset(column, 0, sizeof(Column))
    column.kind = BLOB if is_heap(dtype) else FIXED
    column.boolean = dtype == BOOL
    _, held = array.__arrow_c_array__()
    attach(column, <const ArrowArray*> PyCapsule_GetPointer(held, "arrow_array"))
    return held


cdef inline bint load_value(const Column* c, int dtype, int64_t i, Value* out) noexcept nogil:
    """Value i of an Arrow array; False for null."""
    cdef char one
    if c.present != NULL and not bit(c.present, c.offset + i):
        return False
    if is_heap(dtype):
        out.data = c.data + c.ends[i]
        out.size = c.ends[i + 1] - c.ends[i]
    elif dtype == BOOL:
        out.key = bit(<const uint8_t*> c.data, c.offset + i)
    else:
        out.key = key_of(dtype, c.data + (c.offset + i) * width_of(dtype))
    return True


cdef inline bint same_bytes(const void* a, const void* b, int width) noexcept nogil:
    """Of 1, 4 or 8; sizes that the compiler knows are no calls."""
    if width == 8:
        return memcmp(a, b, 8) == 0
    return memcmp(a, b, 4) == 0 if width == 4 else memcmp(a, b, 1) == 0


cdef inline bint take_value(Reader* data, int dtype, Value* out) noexcept nogil:
    """Read a value of a tile; it stays where it lies. Whether there is one."""
    cdef uint64_t word, size = width_of(dtype)
    cdef const uint8_t* at
    out.key = 0
    if not size and not take_unsigned(data, &size, <uint64_t> 1 << 32):
        return False
    at = take(data, <int64_t> size)
    if at == NULL:
        return False
    if is_heap(dtype):
        out.data = <const char*> at
        out.size = <int64_t> size
        return True
    out.key = key_of(dtype, <const char*> at)
    word = word_of(dtype, out.key)
    return same_bytes(&word, at, <int> size)    # a bool is 0 or 1, a NaN the one


# ---- XXH64, seed 0; sketches_py.py is the twin ----

cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>
    #define FS_P1 0x9E3779B185EBCA87u
    #define FS_P2 0xC2B2AE3D27D4EB4Fu
    #define FS_P3 0x165667B19E3779F9u
    #define FS_P4 0x85EBCA77C2B2AE63u
    #define FS_P5 0x27D4EB2F165667C5u
    static inline uint64_t fs_turn(uint64_t w, int bits) { return w << bits | w >> (64 - bits); }
    static inline uint64_t fs_lane(uint64_t lane, uint64_t w) { return fs_turn(lane + w * FS_P2, 31) * FS_P1; }
    static inline uint64_t fs_word(const char *p) { uint64_t w; memcpy(&w, p, 8); return w; }
    static inline uint64_t fs_xxh64(const char *p, size_t size) {
        uint64_t h = FS_P5, a = FS_P1 + FS_P2, b = FS_P2, c = 0, d = 0 - FS_P1;
        size_t left = size;
        if (size >= 32) {
            for (; left >= 32; left -= 32, p += 32) {
                a = fs_lane(a, fs_word(p));
                b = fs_lane(b, fs_word(p + 8));
                c = fs_lane(c, fs_word(p + 16));
                d = fs_lane(d, fs_word(p + 24));
            }
            h = fs_turn(a, 1) + fs_turn(b, 7) + fs_turn(c, 12) + fs_turn(d, 18);
            h = (h ^ fs_lane(0, a)) * FS_P1 + FS_P4;
            h = (h ^ fs_lane(0, b)) * FS_P1 + FS_P4;
            h = (h ^ fs_lane(0, c)) * FS_P1 + FS_P4;
            h = (h ^ fs_lane(0, d)) * FS_P1 + FS_P4;
        }
        h += size;
        for (; left >= 8; left -= 8, p += 8) h = fs_turn(h ^ fs_lane(0, fs_word(p)), 27) * FS_P1 + FS_P4;
        if (left >= 4) {
            uint32_t w;
            memcpy(&w, p, 4);
            h = fs_turn(h ^ w * FS_P1, 23) * FS_P2 + FS_P3;
            left -= 4;
            p += 4;
        }
        for (; left; left--, p++) h = fs_turn(h ^ (uint8_t) *p * FS_P5, 11) * FS_P1;
        h = (h ^ h >> 33) * FS_P2;
        h = (h ^ h >> 29) * FS_P3;
        return h ^ h >> 32;
    }
    """
    uint64_t fs_xxh64(const char* data, size_t size)


cdef inline uint64_t hash_of(int dtype, const Value* value) noexcept nogil:
    cdef uint64_t word
    if is_heap(dtype):
        return fs_xxh64(value.data, value.size)
    word = word_of(dtype, value.key)
    return fs_xxh64(<const char*> &word, width_of(dtype))


# ---- buckets of quantiles; sketches_py.py is the twin ----

cdef inline int64_t bucket_of(double number, int bits) noexcept nogil:
    """Of a number that is not NaN."""
    cdef uint64_t word
    memcpy(&word, &number, 8)
    cdef int64_t magnitude = <int64_t> ((word & <uint64_t> 0x7FFFFFFFFFFFFFFF) >> (52 - bits))
    return magnitude if number >= 0 else -magnitude - 1


cdef inline double bucket_middle(int64_t bucket, int bits) noexcept nogil:
    cdef int64_t magnitude = bucket if bucket >= 0 else -bucket - 1
    cdef uint64_t word = <uint64_t> magnitude << (52 - bits)
    cdef double middle
    if magnitude == 0:
        return 0.0
    if magnitude != <int64_t> 0x7FF << bits:
        word += <uint64_t> 1 << (51 - bits)
    memcpy(&middle, &word, 8)
    return middle if bucket >= 0 else -middle
