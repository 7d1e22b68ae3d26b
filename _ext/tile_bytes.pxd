# States of a tile as bytes, docs/tile-format.md; header only. aggregations/states_py.py is the twin.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from buffers cimport Buffer, put, reserve
from exact cimport put_exact, take_exact
from tile_program cimport COUNT, DISTINCT, EVENTS, FIRST, MAX, MIN, RANKED, SQUARES, SUM, Level, State
from tile_states cimport (
    Acc, Bucket, Ranked, add_bucket, add_extreme, add_hash, add_ranked, settle, settle_buckets
)
from tile_values cimport Value, compare, is_float, is_heap, take_value, width_of, word_of
from varint cimport Reader, put_signed, put_unsigned, take, take_signed, take_unsigned


cdef enum:
    COUNT_BITS = 48     # counts in tiles are less than 2^48


cdef enum Taken:        # what reading of tiles came to; -1 is an exception
    MISFIT = 0
    FITS = 1


# ---- writing -----------------------------------------------------------------------------------


cdef inline int put_state(Buffer* out, const State* state, Acc* a, int64_t start) except -1 nogil:
    """Append the state of a tile of events after start."""
    cdef int kind = state.kind
    reserve(out, 24)
    if kind == EVENTS or kind == COUNT:
        put_unsigned(out, a.count)
    elif kind == SUM or kind == SQUARES:
        put_exact(out, &a.exact)
    elif kind == MIN or kind == MAX:
        put_unsigned(out, a.count)
        if a.count:
            put_fixed(out, state.dtype, a.value)
    elif kind == FIRST or kind == RANKED:
        put_ranked(out, state, a, start)
    elif kind == DISTINCT:
        settle(state, a)
        put_unsigned(out, a.count)
        if a.count:
            put(out, a.items, 8 * a.count)
    else:
        put_buckets(out, a)
    return 0


cdef inline void put_fixed(Buffer* out, int dtype, int64_t key) noexcept nogil:
    """A value of fixed width; room was reserved."""
    cdef uint64_t word = word_of(dtype, key)
    memcpy(out.data + out.size, &word, 8)
    out.size += width_of(dtype)


cdef inline int put_ranked(Buffer* out, const State* state, const Acc* a, int64_t start) except -1 nogil:
    cdef int64_t i, before = start + 1
    cdef const Ranked* items = <const Ranked*> a.items + a.start
    put_unsigned(out, a.count)
    for i in range(a.count):
        reserve(out, 28)
        put_unsigned(out, items[i].event - before)
        before = items[i].event
        if is_heap(state.dtype):
            put_unsigned(out, items[i].value.size)
            if items[i].value.size:
                put(out, items[i].value.data, items[i].value.size)
        else:
            put_fixed(out, state.dtype, items[i].value.key)
    return 0


cdef inline int put_buckets(Buffer* out, Acc* a) except -1 nogil:
    cdef int64_t i
    cdef const Bucket* items
    settle_buckets(a)
    items = <const Bucket*> a.items
    reserve(out, 10 + 20 * a.count)
    put_unsigned(out, a.count)
    for i in range(a.count):
        if i:
            put_unsigned(out, items[i].bucket - items[i - 1].bucket)
        else:
            put_signed(out, items[i].bucket)
        put_unsigned(out, items[i].count)
    return 0


# ---- reading -----------------------------------------------------------------------------------


cdef inline int take_state(Reader* data, const State* state, Acc* a, int64_t start, int64_t hop) except -1 nogil:
    """Read a state and add it to a, unless that is NULL; FITS or MISFIT."""
    cdef uint64_t count
    cdef Value value
    cdef int kind = state.kind
    cdef bint whole
    if kind == SUM or kind == SQUARES:
        whole = not is_float(state.dtype)
        return take_exact(
            data, &a.exact if a != NULL else NULL, 0 if whole else -1074 * (1 + (kind == SQUARES)),
            1152 * (1 + (kind == SQUARES)))
    if kind == FIRST or kind == RANKED:
        return take_ranked(data, state, a, start, hop)
    if kind == DISTINCT:
        return take_hashes(data, state, a)
    if kind == MIN or kind == MAX:
        if not take_unsigned(data, &count, 2) or (count and not take_value(data, state.dtype, &value)):
            return MISFIT
        if a != NULL and count:
            add_extreme(state, a, value.key)
        return FITS
    if kind == EVENTS or kind == COUNT:
        if not take_unsigned(data, &count, <uint64_t> 1 << COUNT_BITS):
            return MISFIT
        if a != NULL:
            a.count += count
        return FITS
    return take_buckets(data, state, a)


cdef inline int take_ranked(Reader* data, const State* state, Acc* a, int64_t start, int64_t hop) except -1 nogil:
    cdef uint64_t count, step, i
    cdef int64_t event = start + 1, last = start + hop
    cdef Value value, before
    before.key, before.data, before.size = 0, NULL, 0
    if not take_unsigned(data, &count, state.n + 1):
        return MISFIT
    for i in range(count):
        if not take_unsigned(data, &step, hop) or <int64_t> step > last - event:
            return MISFIT
        event += step
        if not take_value(data, state.dtype, &value):
            return MISFIT
        if i and step == 0 and compare(state.dtype, &before, &value) > 0:
            return MISFIT
        before = value
        if a != NULL:
            add_ranked(state, a, event, &value)
    return FITS


cdef inline int take_hashes(Reader* data, const State* state, Acc* a) except -1 nogil:
    cdef uint64_t count, i, word, before = 0
    cdef const uint8_t* words
    if not take_unsigned(data, &count, state.n + 1):
        return MISFIT
    words = take(data, 8 * count)
    if words == NULL:
        return MISFIT
    for i in range(count):
        memcpy(&word, words + 8 * i, 8)
        if i and word <= before:
            return MISFIT
        before = word
        if a != NULL:
            add_hash(state, a, word)
    return FITS


cdef inline int take_buckets(Reader* data, const State* state, Acc* a) except -1 nogil:
    cdef int64_t bucket = 0, top = <int64_t> 0x7FF << state.n
    cdef uint64_t count, i, step, values
    if not take_unsigned(data, &count, 2 * top + 3):
        return MISFIT
    for i in range(count):
        if i == 0:
            if not take_signed(data, &bucket) or bucket < -top - 1 or bucket > top:
                return MISFIT
        else:
            if not take_unsigned(data, &step, 2 * top + 2) or step == 0 or <int64_t> step > top - bucket:
                return MISFIT
            bucket += step
        if not take_unsigned(data, &values, <uint64_t> 1 << COUNT_BITS) or values == 0:
            return MISFIT
        if a != NULL:
            add_bucket(a, bucket, values)
    return FITS


# ---- tiles -------------------------------------------------------------------------------------


cdef inline bint take_index(Reader* data, const Level* level, bint first, int64_t* index) noexcept nogil:
    """The index of the next tile; before it, index is that of the last one."""
    cdef uint64_t step
    if first:
        return take_signed(data, index) and -level.edge <= index[0] <= level.edge
    if not take_unsigned(data, &step, 0) or not step:
        return False
    if step > <uint64_t> level.edge - <uint64_t> index[0]:
        return False
    index[0] += step
    return True


cdef inline int take_tile(Reader* data, const Level* level, const State* states, Acc* accs, int64_t index) except -1 nogil:
    """The states of a tile, added to accs unless that is NULL; both are those of the level. FITS or MISFIT."""
    cdef int i, taken
    for i in range(level.n_states):
        taken = take_state(data, &states[i], &accs[i] if accs != NULL else NULL, index * level.hop, level.hop)
        if taken != FITS:
            return taken
    return FITS
