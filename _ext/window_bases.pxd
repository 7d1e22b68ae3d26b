# What ranges of an entity's events are answered from, made once for all windows and labels; header only.
#
#     EVENTS, COUNT     the difference of how many came before
#     SUM, SQUARES      the difference of two exact sums (window_sums.h), where these fit
#     MIN, MAX          both ends of the range one by one, and between them whole blocks: the greatest of 1, 2, 4 … blocks
#                       is known from each on, and two of those cover any number
#
#     ranks    5 1 | 3 9 | 2 2 | 8 4 | 6 …     blocks of 2 for the eye
#     1 block   5     9     2     8            of events 1 … 7: 1, then blocks 1 … 3, being 9 of (1, 2) and 8 of (2, 3)
#     2         9     9     8     8

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t
from libc.stdlib cimport free, malloc

from exact cimport Exact
from tile_program cimport COUNT, EVENTS, MAX, MIN, SQUARES, SUM, State
from tile_states cimport Acc
from tile_values cimport Value, is_float, nan_key, number_of

cdef extern from "window_sums.h" nogil:
    ctypedef struct Int128 "__int128":
        pass

    ctypedef struct Sums "fs_sums":
        Int128* sums

    void sums_begin "fs_sums_begin"(Sums* s)
    void sums_see_double "fs_sums_see_double"(Sums* s, double value)
    void sums_see_int "fs_sums_see_int"(Sums* s, int64_t value)
    bint sums_fit "fs_sums_fit"(Sums* s, int64_t n, bint is_double, bint squared)
    void sums_put_double "fs_sums_put_double"(Sums* s, int64_t i, double value, bint squared)
    void sums_put_int "fs_sums_put_int"(Sums* s, int64_t i, int64_t value, bint squared)
    void sums_take "fs_sums_take"(const Sums* s, int64_t first, int64_t stop, Exact* x)
    int64_t length_of "fs_length"(int64_t bits)

cdef extern from * nogil:
    """
    #include <string.h>
    static inline void fs_zero(__int128 *at) { memset(at, 0, sizeof *at); }
    """
    void set_zero "fs_zero"(Int128* at)

cdef enum:
    BLOCK_BITS = 5
    FEW = 2 << BLOCK_BITS       # events that are looked at one by one


cdef struct Base:
    State state
    bint fits               # SUM, SQUARES: of the entity at hand
    Sums sums               # room + 1
    int64_t* counts         # [room + 1] how many values came before; NULL where no value is null
    int64_t* ranks          # [room] MIN, MAX: the greater, the nearer to the extreme
    int64_t* tops           # [levels of blocks each]
    int64_t blocks          # of `room` events


# ---- memory ------------------------------------------------------------------------------------


cdef inline int open_base(Base* base, bint nulls, int64_t room) except -1:
    """For entities with so many events; its state is there."""
    cdef int kind = base.state.kind
    base.blocks = (room >> BLOCK_BITS) + 1
    if nulls and kind != EVENTS:
        base.counts = <int64_t*> claim((room + 1) * sizeof(int64_t))
    if kind == SUM or kind == SQUARES:
        base.sums.sums = <Int128*> claim((room + 1) * sizeof(Int128))
    elif kind == MIN or kind == MAX:
        base.ranks = <int64_t*> claim((room + 1) * sizeof(int64_t))
        base.tops = <int64_t*> claim(base.blocks * length_of(base.blocks) * sizeof(int64_t))
    return 0


cdef inline void* claim(size_t size) except NULL:
    cdef void* made = malloc(size)
    if made == NULL:
        raise MemoryError
    return made


cdef inline void close_base(Base* base) noexcept:
    free(base.sums.sums)
    free(base.counts)
    free(base.ranks)
    free(base.tops)


# ---- of an entity ------------------------------------------------------------------------------


cdef inline void fill_base(Base* base, const Value** given, int64_t n) noexcept nogil:
    """For the n events at hand; NULL for null."""
    cdef int kind = base.state.kind
    cdef int64_t i
    if base.counts != NULL:
        base.counts[0] = 0
        for i in range(n):
            base.counts[i + 1] = base.counts[i] + (given[i] != NULL)
    if kind == SUM or kind == SQUARES:
        fill_sums(base, given, n)
    elif kind == MIN or kind == MAX:
        for i in range(n):
            base.ranks[i] = rank_of(&base.state, given[i].key) if given[i] != NULL else INT64_MIN
        if n > FEW:
            fill_tops(base, n)


cdef inline void fill_sums(Base* base, const Value** given, int64_t n) noexcept nogil:
    cdef int dtype = base.state.dtype
    cdef bint floats = is_float(dtype), squared = base.state.kind == SQUARES
    cdef Sums* sums = &base.sums
    cdef int64_t i
    sums_begin(sums)
    for i in range(n):
        if given[i] == NULL:
            continue
        if floats:
            sums_see_double(sums, number_of(dtype, given[i].key))
        else:
            sums_see_int(sums, given[i].key)
    base.fits = sums_fit(sums, n, floats, squared)
    if not base.fits:
        return
    set_zero(&sums.sums[0])
    for i in range(n):
        if floats:
            sums_put_double(sums, i, number_of(dtype, given[i].key) if given[i] != NULL else 0.0, squared)
        else:
            sums_put_int(sums, i, given[i].key if given[i] != NULL else 0, squared)


cdef inline void fill_tops(Base* base, int64_t n) noexcept nogil:
    """Of whole blocks: one by one, then two of half as many."""
    cdef int64_t blocks = n >> BLOCK_BITS, i, width = 1
    cdef int64_t* level = base.tops
    cdef int64_t* below
    for i in range(blocks):
        level[i] = greatest(base.ranks, i << BLOCK_BITS, (i + 1) << BLOCK_BITS)
    while 2 * width <= blocks:
        below, level = level, level + base.blocks
        for i in range(blocks - 2 * width + 1):
            level[i] = max(below[i], below[i + width])
        width *= 2


# ---- of a range --------------------------------------------------------------------------------


cdef inline int64_t count_of(const Base* base, int64_t low, int64_t high) noexcept nogil:
    """Values that are not null; of EVENTS, events."""
    return high - low if base.counts == NULL else base.counts[high] - base.counts[low]


cdef inline void take_range(const Base* base, int64_t low, int64_t high, Acc* a) noexcept nogil:
    """The state of events low … high - 1; a sum's, where it fits."""
    cdef int kind = base.state.kind
    if kind == SUM or kind == SQUARES:
        sums_take(&base.sums, low, high, &a.exact)
        return
    a.count = count_of(base, low, high)
    if kind >= MIN and a.count:
        a.count = 1
        a.value = key_of_rank(&base.state, top_of(base, low, high))


cdef inline int64_t top_of(const Base* base, int64_t low, int64_t high) noexcept nogil:
    cdef int64_t first, stop, width, best
    cdef const int64_t* level
    if high - low <= FEW:
        return greatest(base.ranks, low, high)
    first, stop = (low + (1 << BLOCK_BITS) - 1) >> BLOCK_BITS, high >> BLOCK_BITS
    best = max(greatest(base.ranks, low, first << BLOCK_BITS), greatest(base.ranks, stop << BLOCK_BITS, high))
    width = length_of(stop - first) - 1
    level = base.tops + width * base.blocks
    return max(best, max(level[first], level[stop - (<int64_t> 1 << width)]))


cdef inline int64_t greatest(const int64_t* ranks, int64_t low, int64_t high) noexcept nogil:
    cdef int64_t i, best = INT64_MIN
    for i in range(low, high):
        best = max(best, ranks[i])
    return best


cdef inline int64_t rank_of(const State* state, int64_t key) noexcept nogil:
    """NaN is the extreme where there is any: it is the greatest key, and put before all of MIN."""
    if state.kind == MAX:
        return key
    return INT64_MAX if is_float(state.dtype) and key == nan_key(state.dtype) else ~key


cdef inline int64_t key_of_rank(const State* state, int64_t rank) noexcept nogil:
    if state.kind == MAX:
        return rank
    return nan_key(state.dtype) if is_float(state.dtype) and rank == INT64_MAX else ~rank
