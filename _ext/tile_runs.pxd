# Tiles of plain states, which are counts, sums, minima and maxima, of many keys at once: see tile_runs.h. Header only.
#
#     Plain    which programs, and what of their columns is looked at
#     Part     the events of some keys of a bucket, by key and unit of time; a unit is what all levels' hops are multiples of
#
# A key is odd where a value is infinite or NaN. Odd keys are built by tile_states.pxd, like programs of other states.

from libc.stdint cimport INT64_MIN, int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memset

from divide cimport Divisor, divide, divisor_of
from event_buckets cimport AHEAD, MOST_COLUMNS, Deal, Placed, Wanted, bucket_start
from tile_program cimport COUNT, EVENTS, MAX, MIN, SUM, Level, Program, State, floor_div
from tile_values cimport FLOAT32, FLOAT64, is_float, number_of, turned, width_of, word_of

cdef extern from * nogil:
    void __builtin_prefetch(const void* at)

cdef extern from "tile_runs.h" nogil:
    enum:
        FS_SLACK
        FS_EVENTS
        FS_VALUES
        FS_SUM_INTS
        FS_SUM_FLOATS
        FS_LEAST
        FS_MOST

    ctypedef struct PlainState "fs_plain":
        int kind
        int bytes
        const int64_t* keys
        const int64_t* m
        const int16_t* e
        int unit
        const int64_t* words
        const uint8_t* absent

    ctypedef struct PlainLevel "fs_plain_level":
        int n_states
        const PlainState* states
        int64_t hop
        int64_t span
        int64_t first
        uint64_t rest
        uint64_t ratio
        Divisor by_ratio
        Divisor by_hop
        size_t width
        const char* slots
        const uint16_t* used

    void split "fs_split"(const uint64_t* bits, size_t n, int64_t* m, int16_t* e)
    int unit_of "fs_unit_of"(const int16_t* e, size_t n)
    void fill_slots "fs_fill_slots"(const PlainState* state, size_t n, char* slots, size_t width, uint16_t* used)
    char* put_tiles "fs_put_tiles"(
        char* out, const PlainLevel* level, const uint32_t* unit, size_t start, size_t stop, int64_t newest)

cdef enum:
    MOST_STATES = 32    # of all levels
    MOST_LEVELS = 8

cdef struct Part:
    int64_t n               # events
    uint32_t* unit
    int64_t* newest         # of a key
    uint8_t* odd
    uint32_t* key           # of an event, within the part
    int64_t* keys[MOST_COLUMNS]     # values, as Value.key; 0 for null
    int64_t* bits[MOST_COLUMNS]     # of floats, as float64
    int64_t* m[MOST_COLUMNS]        # of floats, m * 2^(e - 1075)
    int16_t* e[MOST_COLUMNS]
    int units[MOST_COLUMNS]         # of their sums
    int64_t* words[MOST_COLUMNS]    # of float32, as they are
    uint8_t* absent[MOST_COLUMNS]   # NULL where no value is null
    char* slots[MOST_LEVELS]
    uint16_t* used[MOST_LEVELS]

cdef struct Plain:
    bint fits               # whether the program is of plain states, and of few enough
    int64_t unit
    Wanted wanted           # of which columns what
    bint finite[MOST_COLUMNS]       # whether infinities and NaN make a key odd
    PlainState states[MOST_STATES]
    int column[MOST_STATES]         # of a state, among those that are looked at
    PlainLevel levels[MOST_LEVELS]
    int like[MOST_LEVELS]   # the first level of the same states, which has the slots of both
    Part part
    char* room
    size_t capacity


# ---- the program ----

cdef inline int64_t common(int64_t a, int64_t b) noexcept nogil:
    """The greatest divisor of both."""
    while b:
        a, b = b, a % b
    return a


cdef inline void plan_plain(Plain* plain, const Program* p) noexcept nogil:
    """Whether a program is plain, and what of its columns is looked at."""
    cdef int s, l
    plain.fits = 1 <= p.n_levels <= MOST_LEVELS and p.n_states <= MOST_STATES
    for l in range(p.n_levels):
        plain.unit = common(plain.unit, p.levels[l].hop)
        plain.fits = plain.fits and p.levels[l].hop <= <int64_t> 1 << 60
    for s in range(p.n_states if plain.fits else 0):
        plan_state(plain, s, &p.states[s])
    for l in range(p.n_levels if plain.fits else 0):
        plan_level(plain, p, l)


cdef inline void plan_state(Plain* plain, int s, const State* state) noexcept nogil:
    cdef PlainState* to = &plain.states[s]
    cdef Wanted* wanted = &plain.wanted
    cdef int v = 0
    if state.kind == EVENTS:
        to.kind = FS_EVENTS
        return
    while v < wanted.n and wanted.columns[v] != state.column:
        v += 1
    if v == MOST_COLUMNS:
        plain.fits = False
        return
    if v == wanted.n:
        wanted.columns[v] = state.column
        wanted.n += 1
    plain.column[s], to.bytes = v, width_of(state.dtype)
    if state.kind == COUNT:
        to.kind = FS_VALUES
        return
    wanted.values[v] = True
    plain.finite[v] |= is_float(state.dtype) and state.kind != MAX
    plain.fits = plain.fits and to.bytes >= 4 and (state.kind == SUM or state.kind == MIN or state.kind == MAX)
    if state.kind == SUM:
        to.kind = FS_SUM_FLOATS if is_float(state.dtype) else FS_SUM_INTS
    else:
        to.kind = FS_LEAST if state.kind == MIN else FS_MOST


cdef inline void plan_level(Plain* plain, const Program* p, int number) noexcept nogil:
    cdef const Level* level = &p.levels[number]
    cdef PlainLevel* to = &plain.levels[number]
    cdef int s, kind
    to.n_states, to.states = level.n_states, &plain.states[level.first]
    to.hop, to.span, to.ratio = level.hop, level.span, level.hop // plain.unit
    to.by_ratio, to.by_hop = divisor_of(to.ratio), divisor_of(to.hop)
    to.width = FS_SLACK
    for s in range(to.n_states):
        kind = to.states[s].kind
        to.width += 20 if kind == FS_SUM_INTS or kind == FS_SUM_FLOATS else 9 if kind >= FS_LEAST else 5
    to.width = (to.width + 31) & ~<size_t> 31      # few of them cross a cache line
    plain.like[number] = 0
    while not same_states(plain, p, &p.levels[plain.like[number]], level):
        plain.like[number] += 1


cdef inline bint same_states(const Plain* plain, const Program* p, const Level* a, const Level* b) noexcept nogil:
    cdef int s, one, other
    if a.n_states != b.n_states:
        return False
    for s in range(a.n_states):
        one, other = a.first + s, b.first + s
        if plain.states[one].kind != plain.states[other].kind or p.states[one].column != p.states[other].column:
            return False
    return True


cdef inline void point_levels(Plain* plain, const Program* p, int64_t origin) noexcept nogil:
    """At where units count from."""
    cdef int64_t at = floor_div(origin, plain.unit)
    cdef int l
    cdef PlainLevel* level
    for l in range(p.n_levels):
        level = &plain.levels[l]
        level.first = floor_div(at, level.ratio)
        level.rest = at - level.first * level.ratio


# ---- events ----

cdef inline char* carve(char** at, size_t size) noexcept nogil:
    cdef char* out = at[0]
    at[0] += (size + 31) & ~<size_t> 31
    return out


cdef inline size_t lay_out(
    Plain* plain, const Program* p, const Deal* d, char* room, size_t n, size_t n_keys
) noexcept nogil:
    """Where a part of so many events and keys lies in a room; what it takes."""
    cdef Part* part = &plain.part
    cdef char* at = room
    cdef int v, l
    part.key = <uint32_t*> carve(&at, 4 * n)
    part.unit = <uint32_t*> carve(&at, 4 * n)
    part.newest = <int64_t*> carve(&at, 8 * n_keys)
    part.odd = <uint8_t*> carve(&at, n_keys)
    for v in range(plain.wanted.n):
        part.keys[v] = <int64_t*> carve(&at, 8 * n)
        part.bits[v] = <int64_t*> carve(&at, 8 * n)
        part.m[v] = <int64_t*> carve(&at, 8 * n)
        part.e[v] = <int16_t*> carve(&at, 2 * n)
        part.words[v] = <int64_t*> carve(&at, 8 * n)
        part.absent[v] = <uint8_t*> carve(&at, n) if d.nulls[v] else NULL
    for l in range(p.n_levels):
        if plain.like[l] == l:
            part.slots[l] = carve(&at, plain.levels[l].width * n)
            part.used[l] = <uint16_t*> carve(&at, 2 * n)
        plain.levels[l].slots, plain.levels[l].used = part.slots[plain.like[l]], part.used[plain.like[l]]
    return at - room


cdef inline int open_part(Plain* plain, const Program* p, const Deal* d, size_t n, size_t n_keys) except -1 nogil:
    """Room for so many."""
    cdef size_t wanted = lay_out(plain, p, d, NULL, n, n_keys)
    cdef char* room
    if wanted > plain.capacity:
        room = <char*> realloc(plain.room, wanted)
        if room == NULL:
            raise MemoryError
        plain.room, plain.capacity = room, wanted
    lay_out(plain, p, d, plain.room, n, n_keys)
    plain.part.n = n
    return 0


cdef inline int load_part(
    Plain* plain, const Program* p, const Deal* d, int64_t b, int64_t first, int64_t stop
) except -1 nogil:
    """The events of some keys of a bucket that is in order, their values and slots."""
    cdef int64_t start = d.key_ends[first - 1] if first else 0, n = d.key_ends[stop - 1] - start
    cdef int v, l, s
    open_part(plain, p, d, n, stop - first)
    memset(plain.part.odd, 0, stop - first)
    gather_events(&plain.part, d, bucket_start(d, b), d.order + start, first)
    for v in range(plain.wanted.n):
        gather_values(plain, d, v, p.dtypes[plain.wanted.columns[v]], bucket_start(d, b), d.order + start)
    for s in range(p.n_states):
        if p.states[s].kind != EVENTS:
            point_state(&plain.states[s], &plain.part, plain.column[s], p.states[s].dtype)
    for l in range(p.n_levels):
        if plain.like[l] == l:
            memset(plain.part.used[l], 0, n * sizeof(uint16_t))
            for s in range(p.levels[l].n_states):
                fill_slots(
                    &plain.levels[l].states[s], n, plain.part.slots[l], plain.levels[l].width, plain.part.used[l])
    return 0


cdef inline void gather_events(
    Part* part, const Deal* d, int64_t base, const uint32_t* order, int64_t first
) noexcept nogil:
    """Units and keys, and of each key the newest event. No branch: where a key ends cannot be foretold."""
    cdef int64_t j, k, last = -1, newest = INT64_MIN, same
    cdef const Placed* placed = d.placed + base
    for j in range(part.n):
        if j + AHEAD < part.n:
            __builtin_prefetch(&placed[order[j + AHEAD]])
        k = placed[order[j]].key - first
        same = 0 - <int64_t> (k == last)
        newest = max((newest & same) | (INT64_MIN & ~same), placed[order[j]].at)
        last = k
        part.key[j] = <uint32_t> k
        part.unit[j] = d.units[order[j]]
        part.newest[k] = newest


cdef inline void gather_values(
    Plain* plain, const Deal* d, int v, int dtype, int64_t base, const uint32_t* order
) noexcept nogil:
    """Of one of the columns that are looked at."""
    cdef Part* part = &plain.part
    cdef int64_t* keys = part.keys[v]
    cdef int64_t* bits = part.bits[v]
    cdef const int64_t* values = d.values[v] + base
    cdef int64_t j
    cdef double number
    if d.nulls[v]:
        for j in range(part.n):
            part.absent[v][j] = d.absent[v][base + order[j]]
    if not plain.wanted.values[v]:
        return
    for j in range(part.n):
        if j + AHEAD < part.n:
            __builtin_prefetch(&values[order[j + AHEAD]])
        keys[j] = values[order[j]]
    if d.nulls[v]:
        for j in range(part.n):
            keys[j] &= <int64_t> part.absent[v][j] - 1
    if dtype == FLOAT64:
        for j in range(part.n):
            bits[j] = turned(keys[j])
    elif dtype == FLOAT32:
        for j in range(part.n):
            part.words[v][j] = word_of(FLOAT32, keys[j])
            number = number_of(FLOAT32, keys[j])
            memcpy(&bits[j], &number, 8)
    if is_float(dtype):
        split(<const uint64_t*> bits, part.n, part.m[v], part.e[v])
        part.units[v] = unit_of(part.e[v], part.n)
    if plain.finite[v]:
        for j in range(part.n):
            part.odd[part.key[j]] |= (bits[j] >> 52 & 0x7FF) == 0x7FF


cdef inline void point_state(PlainState* state, const Part* part, int v, int dtype) noexcept nogil:
    """At its column."""
    state.keys, state.absent = part.keys[v], part.absent[v]
    state.m, state.e, state.unit = part.m[v], part.e[v], part.units[v]
    state.words = part.bits[v] if dtype == FLOAT64 else part.words[v] if dtype == FLOAT32 else part.keys[v]


# ---- rows ----

cdef inline size_t room_of_levels(const Plain* plain, const Program* p, int64_t start, int64_t stop) noexcept nogil:
    """What the tiles of a key's events take at most."""
    cdef int l
    cdef size_t size = FS_SLACK, runs
    cdef uint32_t units = plain.part.unit[stop - 1] - plain.part.unit[start]
    for l in range(p.n_levels):
        runs = min(<size_t> (stop - start), divide(units, plain.levels[l].by_ratio) + 2)
        size += 10 + runs * (10 + plain.levels[l].width)
    return size
