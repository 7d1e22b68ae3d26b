# Events by their keys, in two steps that both are kind to caches; header only.
#
#     deal    one pass over all events: those of bucket b, which has 2^bits neighbouring keys, are
#             placed[ends[b - 1] … ends[b]] as they came, and values[c] beside them
#     order   a bucket's events by key, and those of a key by unit of time where that is asked for: counting sorts,
#             digit by digit from the lowest

cimport cython
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from arrow cimport Column, bit
from buffers cimport large_room
from tile_values cimport FLOAT32, FLOAT64, INT32, INT64, key_of, width_of
from divide cimport Divisor, divide

cdef enum:
    KEY_BITS = 11       # keys in a bucket, at least: their events fit a core's cache where keys have few each
    MOST_BUCKETS = 4096
    DIGIT = 11
    MOST_COLUMNS = 8
    AHEAD = 16          # events whose memory is asked for before they are needed: in large buckets it lies anywhere
    BLOCK = 512         # events that are dealt at a time

cdef extern from * nogil:
    int __builtin_clz(uint32_t value)
    void __builtin_prefetch(const void* at)


cdef struct Placed:
    int64_t at
    uint32_t index      # in the columns
    uint32_t key        # within its bucket

# Columns that are dealt too.
cdef struct Wanted:
    int n
    int columns[MOST_COLUMNS]
    bint values[MOST_COLUMNS]       # their values, and not only which are null

# Memory of events is kept for the next time: it takes as long to get as to use.
cdef struct Deal:
    int64_t room        # of events in what follows
    Placed* placed
    int64_t* values[MOST_COLUMNS]   # as Value.key
    uint8_t* absent[MOST_COLUMNS]   # 1 for null
    uint32_t* order     # of the bucket at hand, which of its events comes where
    uint32_t* spare
    uint32_t* units     # of its events, as they are placed
    int64_t n_keys
    int bits
    int64_t n_buckets
    int64_t* ends
    int64_t earliest    # of all events
    int64_t latest      # also of those that are later than the end
    Wanted wanted
    bint nulls[MOST_COLUMNS]        # whether there are any
    uint32_t* key_ends  # key k's events are order[key_ends[k - 1] … key_ends[k]]


cdef inline int open_deal(Deal* d, int64_t n_keys) except -1 nogil:
    """Of so many keys."""
    d.n_keys, d.bits = n_keys, KEY_BITS
    while n_keys >> d.bits >= MOST_BUCKETS:
        d.bits += 1
    d.n_buckets = ((n_keys - 1) >> d.bits) + 1 if n_keys else 0
    d.ends = <int64_t*> calloc(d.n_buckets + 1, sizeof(int64_t))
    d.key_ends = <uint32_t*> malloc(((<int64_t> 1 << d.bits) + 1) * sizeof(uint32_t))
    if d.ends == NULL or d.key_ends == NULL:
        raise MemoryError
    return 0


cdef inline void end_deal(Deal* d) noexcept nogil:
    free(d.ends)
    free(d.key_ends)
    d.ends, d.key_ends, d.wanted.n = NULL, NULL, 0


cdef inline void free_room(Deal* d) noexcept nogil:
    cdef int c
    free(d.placed)
    for c in range(MOST_COLUMNS):
        free(d.values[c])
        free(d.absent[c])
        d.values[c], d.absent[c] = NULL, NULL
    free(d.order)
    free(d.spare)
    free(d.units)
    d.room, d.placed, d.order, d.spare, d.units = 0, NULL, NULL, NULL, NULL


cdef inline int64_t bucket_start(const Deal* d, int64_t b) noexcept nogil:
    return d.ends[b - 1] if b else 0


cdef inline int64_t keys_of(const Deal* d, int64_t b) noexcept nogil:
    """How many keys are a bucket's."""
    return min(<int64_t> 1 << d.bits, d.n_keys - (b << d.bits))


# ---- dealing ----

cdef inline bint count_events(
    Deal* d, const int64_t* codes, const int64_t* times, int64_t n, int64_t end
) noexcept nogil:
    """How many of each bucket are not later than the end, and between what times all are; False if a code is none."""
    cdef int64_t i, earliest = INT64_MAX, latest = INT64_MIN
    cdef int bits = d.bits
    for i in range(n):
        if <uint64_t> codes[i] >= <uint64_t> d.n_keys:
            return False
        d.ends[codes[i] >> bits] += times[i] <= end
        earliest = min(earliest, times[i])
        latest = max(latest, times[i])
    d.earliest, d.latest = earliest, latest
    return True


cdef inline int make_room(Deal* d, const Wanted* wanted, const Column* columns) except -1 nogil:
    """After count_events: from how many to where they begin, and memory. Wanted is NULL for nothing of the columns."""
    cdef int64_t b, count, at = 0
    cdef int c
    for b in range(d.n_buckets):
        count = d.ends[b]
        d.ends[b] = at
        at += count
    if wanted != NULL:
        d.wanted = wanted[0]
    if at > d.room or d.placed == NULL:
        room_for_events(d, at)
    for c in range(d.wanted.n):
        d.nulls[c] = columns[d.wanted.columns[c]].present != NULL
        if d.wanted.values[c] and d.values[c] == NULL:
            d.values[c] = <int64_t*> large_room(d.room * sizeof(int64_t))
        if d.nulls[c] and d.absent[c] == NULL:
            d.absent[c] = <uint8_t*> large_room(d.room)
    return 0


cdef inline int room_for_events(Deal* d, int64_t n) except -1 nogil:
    """For more than there was."""
    free_room(d)
    d.room = n
    d.placed = <Placed*> large_room(n * sizeof(Placed))
    d.order = <uint32_t*> large_room(n * sizeof(uint32_t))
    d.spare = <uint32_t*> large_room(n * sizeof(uint32_t))
    d.units = <uint32_t*> large_room(n * sizeof(uint32_t))
    return 0


cdef inline void deal(
    Deal* d, const int64_t* codes, const int64_t* times, int64_t n, int64_t end, const Column* columns,
    const int* dtypes
) noexcept nogil:
    """Each event that counts to its bucket; ends are where they end then."""
    cdef uint32_t index[BLOCK]
    cdef uint32_t place[BLOCK]
    cdef int64_t start = 0, i, j, kept, b
    cdef int c
    cdef Placed* placed
    while start < n:
        kept = 0
        for i in range(start, min(n, start + BLOCK)):
            index[kept] = <uint32_t> i
            kept += times[i] <= end
        for j in range(kept):
            i = index[j]
            b = codes[i] >> d.bits
            place[j] = <uint32_t> d.ends[b]
            placed = &d.placed[d.ends[b]]
            d.ends[b] += 1
            placed.at, placed.index = times[i], <uint32_t> i
            placed.key = <uint32_t> (codes[i] - (b << d.bits))
        for c in range(d.wanted.n):
            deal_column(d, c, columns, dtypes, index, place, kept)
        start += BLOCK


cdef inline void deal_column(
    Deal* d, int c, const Column* columns, const int* dtypes, const uint32_t* index, const uint32_t* place, int64_t n
) noexcept nogil:
    cdef const Column* column = &columns[d.wanted.columns[c]]
    cdef int64_t j
    if d.wanted.values[c] and column.data != NULL:
        deal_values(column, dtypes[d.wanted.columns[c]], index, place, n, d.values[c])
    if d.nulls[c]:
        for j in range(n):
            d.absent[c][place[j]] = not bit(column.present, column.offset + index[j])


cdef inline void deal_values(
    const Column* column, int dtype, const uint32_t* index, const uint32_t* place, int64_t n, int64_t* out
) noexcept nogil:
    """A loop for each type, so that what is done with it is decided once."""
    cdef int64_t j
    cdef const char* data = column.data + column.offset * width_of(dtype)
    if dtype == FLOAT64:
        for j in range(n):
            out[place[j]] = key_of(FLOAT64, data + 8 * <int64_t> index[j])
    elif dtype == FLOAT32:
        for j in range(n):
            out[place[j]] = key_of(FLOAT32, data + 4 * <int64_t> index[j])
    elif dtype == INT32:
        for j in range(n):
            out[place[j]] = key_of(INT32, data + 4 * <int64_t> index[j])
    else:
        for j in range(n):
            out[place[j]] = key_of(INT64, data + 8 * <int64_t> index[j])


# ---- order within a bucket ----

cdef inline void order_by_key(Deal* d, int64_t b, const uint32_t* before) noexcept nogil:
    """The last pass, or the only one: before is the order so far, NULL for that in which they came."""
    cdef int64_t keys = keys_of(d, b), k, n = d.ends[b] - bucket_start(d, b), j
    cdef const Placed* placed = d.placed + bucket_start(d, b)
    cdef uint32_t at = 0, count, i
    memset(d.key_ends, 0, keys * sizeof(uint32_t))
    for j in range(n):
        d.key_ends[placed[j].key] += 1
    for k in range(keys):
        count = d.key_ends[k]
        d.key_ends[k] = at
        at += count
    for j in range(n):
        if before != NULL and j + AHEAD < n:
            __builtin_prefetch(&placed[before[j + AHEAD]])
        i = before[j] if before != NULL else <uint32_t> j
        d.order[d.key_ends[placed[i].key]] = i
        d.key_ends[placed[i].key] += 1


cdef inline void order_by_unit(Deal* d, int64_t b, int64_t origin, Divisor unit) noexcept nogil:
    """By key, then by the unit of time since an origin before all events; there are less than 2^32 of them."""
    cdef int64_t n = d.ends[b] - bucket_start(d, b), j
    cdef const Placed* placed = d.placed + bucket_start(d, b)
    cdef uint32_t least = 0xFFFFFFFF, most = 0, u
    cdef bint rising = True
    cdef uint64_t last = 0, place
    for j in range(n):
        u = <uint32_t> divide(<uint64_t> (placed[j].at - 1 - origin), unit)
        d.units[j] = u
        least = min(least, u)
        most = max(most, u)
        place = <uint64_t> placed[j].key << 32 | u
        rising &= place >= last
        last = place
    order_by_key(d, b, NULL if rising or least >= most else digits_in_order(d, n, least, most))


cdef inline uint32_t* digits_in_order(Deal* d, int64_t n, uint32_t least, uint32_t most) noexcept nogil:
    """The order by units; it lies in spare."""
    cdef uint32_t counts[1 << DIGIT]
    cdef int left = 32 - __builtin_clz(most - least), passes = (left + DIGIT - 1) // DIGIT
    cdef int width = (left + passes - 1) // passes, shift = 0, step
    cdef uint32_t mask = (<uint32_t> 1 << width) - 1, at, count, i, w
    cdef uint32_t* source = NULL
    cdef uint32_t* target = d.spare if passes & 1 else d.order
    cdef int64_t j
    for step in range(passes):
        memset(counts, 0, (<size_t> mask + 1) * sizeof(uint32_t))
        for j in range(n):
            counts[(d.units[j] - least) >> shift & mask] += 1
        at = 0
        for w in range(mask + 1):
            count = counts[w]
            counts[w] = at
            at += count
        for j in range(n):
            i = source[j] if source != NULL else <uint32_t> j
            w = (d.units[i] - least) >> shift & mask
            target[counts[w]] = i
            counts[w] += 1
        source = target
        target = d.order if target == d.spare else d.spare
        shift += width
    return source
