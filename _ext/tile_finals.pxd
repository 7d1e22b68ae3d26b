# Values of features out of the states of their windows; header only. aggregations/finals_py.py is the twin.

from libc.math cimport ceil, sqrt
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from exact cimport Exact, exact_int64, exact_round, exact_variance
from tile_program cimport (
    F_COUNT, F_DISTINCT, F_FIRST, F_LAST, F_LAST_N, F_MAX, F_MEAN, F_MIN, F_STD, F_SUM, F_VAR, Output, State
)
from tile_states cimport Acc, Bucket, Ranked, settle
from tile_values cimport Value, bucket_middle, is_float, is_heap, word_of


# A value of fixed width is the low bytes of word, of strings and bytes text; a list is items, rising: the newest is the last.
cdef struct Final:
    bint present
    uint64_t word
    const Value* text
    const Ranked* items
    int64_t count


cdef extern from * nogil:
    """
    #include <stdint.h>
    /* round((bound - 1) * 2^64 / largest), ties to even; no more than an int64 holds. */
    static inline int64_t fs_distinct(uint64_t largest, uint64_t bound) {
        unsigned __int128 top = (unsigned __int128) (bound - 1) << 64, of = largest ? largest : 1;
        unsigned __int128 whole = top / of, twice = 2 * (top % of);
        if (twice > of || (twice == of && (whole & 1))) whole++;
        return whole > INT64_MAX ? INT64_MAX : (int64_t) whole;
    }
    """
    int64_t distinct_estimate "fs_distinct"(uint64_t largest, uint64_t bound)


cdef inline uint64_t word_of_double(double value) noexcept nogil:
    cdef uint64_t word
    if value != value:
        return <uint64_t> 0x7FF8000000000000
    memcpy(&word, &value, 8)
    return word


cdef inline Final finalize(const Output* output, const State* states, Acc* accs, Exact* work) noexcept nogil:
    """The value of an output. States are the level's, accs theirs over the output's window; work is any sum, and lost."""
    cdef Final out
    cdef const State* state = &states[output.states[0]]
    cdef Acc* a = &accs[output.states[0]]
    cdef int function = output.function
    out.present, out.word, out.count, out.items, out.text = a.count > 0, 0, 0, NULL, NULL
    if function == F_COUNT:
        out.present, out.word = True, <uint64_t> a.count
    elif function == F_SUM or function == F_MEAN or function == F_VAR or function == F_STD:
        finalize_moment(&out, output, state, accs, work)
    elif function == F_MIN or function == F_MAX:
        out.word = word_of(state.dtype, a.value)
    elif function == F_FIRST or function == F_LAST or function == F_LAST_N:
        finalize_ranked(&out, function, state, a)
    elif function == F_DISTINCT:
        settle(state, a)
        out.present, out.word = True, <uint64_t> a.count
        if a.count == state.n:
            out.word = distinct_estimate((<uint64_t*> a.items)[a.count - 1], state.n)
    else:
        settle(state, a)
        out.word = word_of_double(quantile(a, output.argument, state.n))
    return out


cdef inline void finalize_moment(
    Final* out, const Output* output, const State* state, Acc* accs, Exact* work
) noexcept nogil:
    cdef int function = output.function
    cdef Acc* a = &accs[output.states[0]]
    cdef Acc* b = &accs[output.states[1]]
    cdef int64_t n = accs[output.states[2 if function == F_VAR or function == F_STD else 1]].count
    cdef double value
    out.present = n > 0
    if not n:
        return
    if function == F_SUM and not is_float(state.dtype):
        out.present = exact_int64(&a.exact, <int64_t*> &out.word)
    elif function == F_SUM:
        out.word = word_of_double(exact_round(&a.exact))
    elif function == F_MEAN:
        out.word = word_of_double(exact_round(&a.exact) / <double> n)
    else:
        value = exact_variance(&a.exact, &b.exact, n, work)
        out.word = word_of_double(value if function == F_VAR else sqrt(value))


cdef inline void finalize_ranked(Final* out, int function, const State* state, const Acc* a) noexcept nogil:
    cdef const Ranked* items = <const Ranked*> a.items + a.start
    if not a.count:
        return
    if function == F_LAST_N:
        out.items, out.count = items, a.count
        return
    if function == F_LAST:
        items += a.count - 1
    if is_heap(state.dtype):
        out.text = &items.value
    else:
        out.word = word_of(state.dtype, items.value.key)


cdef inline double quantile(const Acc* a, double q, int bits) noexcept nogil:
    """The middle of the bucket that holds the value of rank ceil(q * n); buckets rise. 0 of none."""
    cdef const Bucket* items = <const Bucket*> a.items
    cdef int64_t i, n = 0
    cdef double rank
    for i in range(a.count):
        n += items[i].count
    rank = ceil(q * <double> n)
    if rank < 1:
        rank = 1
    for i in range(a.count):
        rank -= items[i].count
        if rank <= 0 or i == a.count - 1:
            return bucket_middle(items[i].bucket, bits)
    return 0.0
