# Partial aggregates as they are added to: an Acc for each state; header only. aggregations/states_py.py is the twin.
#
#     EVENTS, COUNT       count
#     SUM, SQUARES        exact
#     MIN, MAX            count: 1 when there is a value; value: its key
#     FIRST, RANKED       items: Ranked[start … start + count], rising; RANKED slides, so that the newest are appended
#     DISTINCT            items: uint64[count], below limit when there is one; `settle` makes them rise and be the least
#     QUANTILES           items: Bucket[count]; `settle` makes them rise
#
# Bytes of strings are borrowed: from Arrow's memory or from tile rows, which outlive the Acc's use.

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memcpy

from exact cimport Exact, exact_add_double, exact_add_int, exact_init, exact_merge, exact_reset
from tile_program cimport (
    COUNT, DISTINCT, EVENTS, FIRST, MAX, MIN, QUANTILES, RANKED, SQUARES, SUM, State
)
from tile_values cimport Value, bucket_of, compare, hash_of, is_float, nan_key, number_of


cdef struct Ranked:
    int64_t event
    Value value

cdef struct Bucket:
    int64_t bucket
    int64_t count

cdef struct Acc:
    int64_t count
    int64_t value
    Exact exact
    char* items
    int64_t capacity
    int64_t start
    uint64_t limit      # DISTINCT: hashes from here on are not among the least; 0 for none
    bint settled        # DISTINCT, QUANTILES: items rise, and are no more than they must be


# ---- memory ------------------------------------------------------------------------------------


cdef inline Acc* new_accs(const State* states, Py_ssize_t n) except NULL:
    """One for each state, empty."""
    cdef Py_ssize_t i
    cdef Acc* accs = <Acc*> calloc(n + 1, sizeof(Acc))
    if accs == NULL:
        raise MemoryError
    for i in range(n):
        accs[i].settled = True
        if (states[i].kind == SUM or states[i].kind == SQUARES) and exact_init(&accs[i].exact):
            free_accs(accs, n)
            raise MemoryError
    return accs


cdef inline void free_accs(Acc* accs, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i
    for i in range(n if accs != NULL else 0):
        free(accs[i].exact.digits)
        free(accs[i].items)
    free(accs)


cdef inline void reset(const State* state, Acc* a) noexcept nogil:
    a.count = a.start = 0
    a.limit = 0
    a.settled = True
    if state.kind == SUM or state.kind == SQUARES:
        exact_reset(&a.exact)


cdef inline int grow(Acc* a, int64_t wanted, size_t width) except -1 nogil:
    """Room for so many items."""
    cdef char* items
    if wanted <= a.capacity:
        return 0
    wanted = max(wanted, 2 * a.capacity, 8)
    items = <char*> realloc(a.items, wanted * width)
    if items == NULL:
        raise MemoryError
    a.items = items
    a.capacity = wanted
    return 0


# ---- events ------------------------------------------------------------------------------------


cdef inline int update(const State* state, Acc* a, int64_t event, const Value* value) except -1 nogil:
    """One more event; its value is NULL for a null."""
    cdef int kind = state.kind
    if kind == EVENTS:
        a.count += 1
    elif value == NULL:
        pass
    elif kind == COUNT:
        a.count += 1
    elif kind == SUM or kind == SQUARES:
        if is_float(state.dtype):
            exact_add_double(&a.exact, number_of(state.dtype, value.key), kind == SQUARES)
        else:
            exact_add_int(&a.exact, value.key, kind == SQUARES)
    elif kind == MIN or kind == MAX:
        add_extreme(state, a, value.key)
    elif kind == FIRST or kind == RANKED:
        add_ranked(state, a, event, value)
    elif kind == DISTINCT:
        add_hash(state, a, hash_of(state.dtype, value))
    elif not is_float(state.dtype) or value.key != nan_key(state.dtype):
        add_bucket(a, bucket_of(number_of(state.dtype, value.key), state.n), 1)
    return 0


cdef inline void add_extreme(const State* state, Acc* a, int64_t key) noexcept nogil:
    """NaN is above all, and the least where there is any."""
    if a.count == 0:
        a.value = key
        a.count = 1
    elif state.kind == MAX:
        a.value = max(a.value, key)
    elif is_float(state.dtype) and (key == nan_key(state.dtype) or a.value == nan_key(state.dtype)):
        a.value = nan_key(state.dtype)
    else:
        a.value = min(a.value, key)


cdef inline bint after(const State* state, const Ranked* a, int64_t event, const Value* value) noexcept nogil:
    """Whether a comes later than an event of this value."""
    return a.event > event or (a.event == event and compare(state.dtype, &a.value, value) > 0)


cdef inline int add_ranked(const State* state, Acc* a, int64_t event, const Value* value) except -1 nogil:
    """Insert it, from the end, where the newest belong; then drop the oldest, or of FIRST the newest, beyond n."""
    cdef Ranked* items
    cdef int64_t at
    if a.start + a.count >= a.capacity:
        make_room(state, a)
    items = <Ranked*> a.items + a.start
    at = a.count
    while at and after(state, &items[at - 1], event, value):
        items[at] = items[at - 1]
        at -= 1
    items[at].event = event
    items[at].value = value[0]
    a.count += 1
    if a.count > state.n:
        a.count = state.n
        a.start += state.kind == RANKED
    return 0


cdef inline int make_room(const State* state, Acc* a) except -1 nogil:
    """After the last item: by moving them to the front, where that frees half."""
    if a.start == 0 or a.start < a.count:
        return grow(a, a.start + a.count + 1, sizeof(Ranked))
    memcpy(a.items, a.items + a.start * sizeof(Ranked), a.count * sizeof(Ranked))
    a.start = 0
    return 0


cdef inline int add_hash(const State* state, Acc* a, uint64_t word) except -1 nogil:
    if a.limit and word >= a.limit:
        return 0
    if a.count >= a.capacity or a.count >= 2 * state.n:
        settle(state, a)
        if a.limit and word >= a.limit:
            return 0
        grow(a, a.count + 1 if a.count < a.capacity >> 1 else 2 * a.count + 1, sizeof(uint64_t))
    if a.count and word <= (<uint64_t*> a.items)[a.count - 1]:
        a.settled = False
    (<uint64_t*> a.items)[a.count] = word
    a.count += 1
    if a.count > state.n:
        a.settled = False
    return 0


cdef inline int add_bucket(Acc* a, int64_t bucket, int64_t count) except -1 nogil:
    cdef Bucket* last
    if a.count:
        last = <Bucket*> a.items + a.count - 1
        if last.bucket == bucket:
            last.count += count
            return 0
        if last.bucket > bucket:
            a.settled = False
    if a.count >= a.capacity:
        settle_buckets(a)
        grow(a, a.count + 1 if a.count < a.capacity >> 1 else 2 * a.count + 1, sizeof(Bucket))
        if a.count:
            last = <Bucket*> a.items + a.count - 1
            a.settled = last.bucket < bucket
    last = <Bucket*> a.items + a.count
    last.bucket = bucket
    last.count = count
    a.count += 1
    return 0


# ---- merging -----------------------------------------------------------------------------------


cdef inline int merge(const State* state, Acc* a, Acc* b) except -1 nogil:
    """Add the events of b to a; best when b's are the later ones."""
    cdef int64_t i
    cdef int kind = state.kind
    if kind == EVENTS or kind == COUNT:
        a.count += b.count
    elif kind == SUM or kind == SQUARES:
        exact_merge(&a.exact, &b.exact)
    elif kind == MIN or kind == MAX:
        if b.count:
            add_extreme(state, a, b.value)
    elif kind == FIRST or kind == RANKED:
        for i in range(b.start, b.start + b.count):
            add_ranked(state, a, (<Ranked*> b.items)[i].event, &(<Ranked*> b.items)[i].value)
    elif kind == DISTINCT:
        for i in range(b.count):
            add_hash(state, a, (<uint64_t*> b.items)[i])
    else:
        for i in range(b.count):
            add_bucket(a, (<Bucket*> b.items)[i].bucket, (<Bucket*> b.items)[i].count)
    return 0


# ---- order -------------------------------------------------------------------------------------


cdef inline int by_hash(const void* a, const void* b) noexcept nogil:
    cdef uint64_t one = (<const uint64_t*> a)[0], other = (<const uint64_t*> b)[0]
    return (one > other) - (one < other)


cdef inline int by_bucket(const void* a, const void* b) noexcept nogil:
    cdef int64_t one = (<const Bucket*> a).bucket, other = (<const Bucket*> b).bucket
    return (one > other) - (one < other)


cdef inline void settle(const State* state, Acc* a) noexcept nogil:
    """DISTINCT, QUANTILES: items rise, each once, and are no more than they must be."""
    if state.kind == DISTINCT:
        settle_hashes(state, a)
    elif state.kind == QUANTILES:
        settle_buckets(a)


cdef inline void settle_hashes(const State* state, Acc* a) noexcept nogil:
    cdef uint64_t* items = <uint64_t*> a.items
    cdef int64_t i, kept = 0
    if not a.settled:
        qsort(items, a.count, sizeof(uint64_t), &by_hash)
        for i in range(a.count):
            if kept == 0 or items[kept - 1] != items[i]:
                items[kept] = items[i]
                kept += 1
        a.count = min(kept, state.n)
        a.settled = True
    if a.count == state.n:
        a.limit = items[a.count - 1]


cdef inline void settle_buckets(Acc* a) noexcept nogil:
    cdef Bucket* items = <Bucket*> a.items
    cdef int64_t i, kept = 0
    if a.settled:
        return
    qsort(items, a.count, sizeof(Bucket), &by_bucket)
    for i in range(1, a.count):
        if items[kept].bucket == items[i].bucket:
            items[kept].count += items[i].count
        else:
            kept += 1
            items[kept] = items[i]
    a.count = kept + 1
    a.settled = True
