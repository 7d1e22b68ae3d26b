"""Windows at labels' times, from ranges of events; materializer/windows/ranges_py.py is the twin.

Events and labels stand by entity, then by time. An entity's events are gathered once; then from label to
label both ends of each window's range move forward, and a state is had of a range:

    EVENTS, COUNT, MIN, MAX          from what is known of all ranges of the entity, see window_bases.pxd
    SUM, SQUARES                     likewise; where values are too unlike for that, what enters the range is
                                     added and what leaves it is taken away again: sums are exact
    FIRST, LAST, LAST_N              from the range's ends inwards
    DISTINCT, QUANTILES              over the whole range again
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc

from arrow cimport Column
from buffers cimport Buffer, release
from exact cimport Exact, exact_init, exact_put_double, exact_put_int
from tile_finals cimport Final, finalize
from tile_program cimport (
    FIRST, MAX, RANKED, SQUARES, SUM, Level, Output, Program, State, floor_div, free_program, load_program
)
from tile_states cimport Acc, Ranked, free_accs, new_accs, reset, update
from tile_values cimport BOOL, Value, attach_values, is_float, is_heap, load_value, number_of, width_of
from window_bases cimport Base, close_base, fill_base, open_base, take_range
from window_values cimport Made, open_made, put_final

import numpy as np
import pyarrow as pa

from fastserve.types import SCALARS, arrow_type, parse_dtype

cdef extern from * nogil:
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    AHEAD = 24              # events on their way from memory


cdef struct Range:          # of events of an entity, by number: low … high - 1
    int64_t low
    int64_t high

cdef struct Window:
    const Level* level
    const State* states     # of the level
    Acc* accs
    Base** bases            # of each state; NULL where it is not to be had of one
    Range* added            # SUM, SQUARES: what is in the acc
    int64_t length
    int64_t low             # of the label at hand
    bint* used              # of the states
    int n_outputs
    int* outputs            # numbers in the call


# ---- folding -----------------------------------------------------------------------------------


def fold_windows(program, outputs, tuple events, tuple labels):
    """See the twin."""
    cdef Folding fold = Folding(program, outputs)
    return fold.run(events, labels)


cdef class Folding:
    """One call."""

    cdef Program p
    cdef object program
    cdef list wanted
    cdef Window* windows
    cdef int n_windows
    cdef Base* bases            # windows of all levels share them
    cdef int n_bases
    cdef Made* made
    cdef int n_made
    cdef Output** finals        # of each output of the call
    cdef Column* columns
    cdef Exact work
    cdef Value* values          # of the entity at hand: column c's are values[c * room …]
    cdef const Value** given    # the same, NULL for null
    cdef bint* read             # of each column, whether an output wants it
    cdef int64_t* times         # of its events
    cdef int64_t* moments       # of its labels
    cdef int64_t room
    cdef int64_t shortest       # column's length

    def __init__(self, program, outputs):
        cdef int i
        self.program, self.wanted = program, list(outputs)
        load_program(&self.p, program, {name: scalar.code for name, scalar in SCALARS.items()})
        self.n_made = len(self.wanted)
        self.made = <Made*> calloc(self.n_made + 1, sizeof(Made))
        self.finals = <Output**> calloc(self.n_made + 1, sizeof(Output*))
        self.windows = <Window*> calloc(self.n_made + 1, sizeof(Window))
        self.bases = <Base*> calloc(self.p.n_states + 1, sizeof(Base))
        self.columns = <Column*> calloc(self.p.n_columns + 1, sizeof(Column))
        self.read = <bint*> calloc(self.p.n_columns + 1, sizeof(bint))
        if self.made == NULL or self.finals == NULL or self.windows == NULL or self.columns == NULL:
            raise MemoryError
        if self.read == NULL or self.bases == NULL:
            raise MemoryError
        if exact_init(&self.work):
            raise MemoryError
        for i in range(self.n_made):
            self.finals[i] = &self.p.outputs[<int> self.wanted[i]]
            dtype = parse_dtype(program.outputs[<int> self.wanted[i]].dtype)
            self.made[i].dtype, self.made[i].is_list = dtype.scalar.code, dtype.is_list
            self.join(i)

    def __dealloc__(self):
        cdef int i
        for i in range(self.n_windows):
            free_accs(self.windows[i].accs, self.windows[i].level.n_states)
            free(self.windows[i].bases)
            free(self.windows[i].added)
            free(self.windows[i].used)
            free(self.windows[i].outputs)
        for i in range(self.n_made if self.made != NULL else 0):
            release(&self.made[i].present)
            release(&self.made[i].data)
            release(&self.made[i].ends)
            release(&self.made[i].item_ends)
        for i in range(self.n_bases):
            close_base(&self.bases[i])
        free(self.windows)
        free(self.bases)
        free(self.made)
        free(self.finals)
        free(self.columns)
        free(self.values)
        free(self.given)
        free(self.times)
        free(self.moments)
        free(self.read)
        free(self.work.digits)
        free_program(&self.p)

    cdef int join(self, int number) except -1:
        """Output `number` to the others of its window."""
        cdef Output* output = self.finals[number]
        cdef const Level* level = &self.p.levels[output.level]
        cdef int64_t length = level.windows[output.ring]
        cdef Window* window
        cdef int i, s
        for i in range(self.n_windows):
            if self.windows[i].level == level and self.windows[i].length == length:
                break
        else:
            i = self.n_windows
            self.open(i, level, length)
        window = &self.windows[i]
        window.outputs[window.n_outputs] = number
        window.n_outputs += 1
        for i in range(len(self.program.outputs[<int> self.wanted[number]].states)):
            s = output.states[i]
            window.used[s] = True
            if window.states[s].kind <= MAX:
                window.bases[s] = self.base_of(&window.states[s])
            if window.states[s].column >= 0:
                self.read[window.states[s].column] = True
        return 0

    cdef Base* base_of(self, const State* state) noexcept:
        cdef Base* base
        cdef int i
        for i in range(self.n_bases):
            base = &self.bases[i]
            if base.state.kind == state.kind and base.state.column == state.column:
                return base
        base = &self.bases[self.n_bases]
        base.state = state[0]
        self.n_bases += 1
        return base

    cdef int open(self, int i, const Level* level, int64_t length) except -1:
        cdef Window* window = &self.windows[i]
        window.level, window.length = level, length
        window.states = &self.p.states[level.first]
        self.n_windows += 1
        window.accs = new_accs(window.states, level.n_states)
        window.bases = <Base**> calloc(level.n_states + 1, sizeof(Base*))
        window.added = <Range*> calloc(level.n_states + 1, sizeof(Range))
        window.used = <bint*> calloc(level.n_states + 1, sizeof(bint))
        window.outputs = <int*> calloc(self.n_made + 1, sizeof(int))
        if window.bases == NULL or window.added == NULL or window.used == NULL or window.outputs == NULL:
            raise MemoryError
        return 0

    def run(self, tuple events, tuple labels):
        """The values."""
        cdef const int64_t[:] starts = events[0]
        cdef const int64_t[:] order = events[1]
        cdef const int64_t[:] times = events[2]
        cdef const int64_t[:] label_starts = labels[0]
        cdef const int64_t[:] label_times = labels[1]
        check_ranges(events[0], events[1], len(label_starts))
        check_ranges(labels[0], labels[1], len(starts))
        check_ranges(events[0], events[2], len(label_starts))
        held = self.point_at(events[3])
        self.make_room(most(events[0]), most(labels[0]))
        for i in range(self.n_made):
            open_made(&self.made[i], len(label_times))
        with nogil:
            self.fold(starts, order, times, label_starts, label_times)
        del held
        return [self.array(i, len(label_times)) for i in range(self.n_made)]

    @cython.boundscheck(False)      # starts, order and times fit each other, which run has looked at
    @cython.wraparound(False)
    cdef int fold(
        self, const int64_t[:] starts, const int64_t[:] order, const int64_t[:] times,
        const int64_t[:] label_starts, const int64_t[:] label_times
    ) except -1 nogil:
        """Every entity that has labels."""
        cdef Py_ssize_t k, i, n, m
        cdef int b
        for k in range(starts.shape[0] - 1):
            n, m = starts[k + 1] - starts[k], label_starts[k + 1] - label_starts[k]
            if not m:
                continue
            for i in range(n):
                self.times[i] = times[starts[k] + i]
            for i in range(m):
                self.moments[i] = label_times[label_starts[k] + i]
            if not self.gather(order, starts[k], starts[k + 1]):
                raise ValueError("order names places of columns")
            for b in range(self.n_bases):
                fill_base(
                    &self.bases[b], self.given + max(self.bases[b].state.column, 0) * self.room, n)
            self.label(n, m)
        return 0

    cdef list point_at(self, columns):
        """Point at the columns; what is returned keeps them alive."""
        cdef int c
        cdef list held = []
        if len(columns) != self.p.n_columns:
            raise ValueError(f"{len(columns)} columns were given, the program is of {self.p.n_columns}")
        for c, declared in enumerate(self.program.columns):
            column = columns[c]
            if column.type != arrow_type(parse_dtype(declared.dtype)):
                raise ValueError(f"column {declared.name!r} is {column.type}")
            self.shortest = min(self.shortest, len(column)) if c else len(column)
            held.append(attach_values(&self.columns[c], self.p.dtypes[c], column))
        return held

    cdef int make_room(self, int64_t largest, int64_t labels) except -1:
        """For an entity with so many events and labels."""
        cdef int b
        cdef Base* base
        self.room = largest
        self.values = <Value*> malloc((largest * self.p.n_columns + 1) * sizeof(Value))
        self.given = <const Value**> malloc((largest * self.p.n_columns + 1) * sizeof(Value*))
        self.times = <int64_t*> malloc((largest + 1) * sizeof(int64_t))
        self.moments = <int64_t*> malloc((labels + 1) * sizeof(int64_t))
        if self.values == NULL or self.given == NULL or self.times == NULL or self.moments == NULL:
            raise MemoryError
        for b in range(self.n_bases):
            base = &self.bases[b]
            open_base(
                base, base.state.column >= 0 and self.columns[base.state.column].present != NULL, largest)
        return 0

    @cython.boundscheck(False)      # start and stop are within order
    @cython.wraparound(False)
    cdef bint gather(self, const int64_t[:] order, int64_t start, int64_t stop) noexcept nogil:
        """The values of an entity's events, one after the other; those of the next are fetched meanwhile.

        False if the order names one that the columns do not have.
        """
        cdef int c, dtype
        cdef int64_t i, j, place
        cdef Value* value
        cdef const Value** given
        for c in range(self.p.n_columns):
            if not self.read[c]:
                continue
            dtype = self.p.dtypes[c]
            value, given = self.values + c * self.room, self.given + c * self.room
            for i in range(stop - start):
                j = start + i
                if j + AHEAD < order.shape[0]:
                    place = order[j + AHEAD]
                    if <uint64_t> place < <uint64_t> self.shortest:
                        fetch(&self.columns[c], dtype, place)
                place = order[j]
                if not <uint64_t> place < <uint64_t> self.shortest:
                    return False
                given[i] = value + i if load_value(&self.columns[c], dtype, place, value + i) else NULL
        return True

    cdef int label(self, int64_t n, int64_t m) except -1 nogil:
        """The values of the m labels at hand, from one to the next, of n events."""
        cdef const int64_t* times = self.times
        cdef int64_t i, t, after, high = 0
        cdef int w
        cdef Window* window
        for w in range(self.n_windows):
            self.empty(&self.windows[w])
        for i in range(m):
            t = self.moments[i]
            high = first_after(times, high, n, t)
            for w in range(self.n_windows):
                window = &self.windows[w]
                after = floor_div(t - window.length, window.level.hop) * window.level.hop
                window.low = first_after(times, window.low, high, after)
                self.answer(window, times, window.low, high)
        return 0

    cdef void empty(self, Window* window) noexcept nogil:
        cdef int s
        window.low = 0
        for s in range(window.level.n_states):
            reset(&window.states[s], &window.accs[s])
            window.added[s].low = window.added[s].high = 0

    cdef int answer(self, Window* window, const int64_t* times, int64_t low, int64_t high) except -1 nogil:
        """The window's values of events low … high - 1."""
        cdef int s, o
        cdef Base* base
        cdef Final value
        for s in range(window.level.n_states):
            if not window.used[s]:
                continue
            base = window.bases[s]
            if base == NULL:
                self.refold(window, s, times, low, high)
            elif (base.state.kind == SUM or base.state.kind == SQUARES) and not base.fits:
                self.slide(window, s, low, high)
            else:
                take_range(base, low, high, &window.accs[s])
        for o in range(window.n_outputs):
            value = finalize(self.finals[window.outputs[o]], window.states, window.accs, &self.work)
            put_final(&self.made[window.outputs[o]], &value)
        return 0

    cdef void slide(self, Window* window, int s, int64_t low, int64_t high) noexcept nogil:
        """A sum moves on to a range."""
        cdef const State* state = &window.states[s]
        cdef const Value** given = self.given + state.column * self.room
        cdef Acc* a = &window.accs[s]
        cdef Range* added = &window.added[s]
        if low >= added.high:
            reset(state, a)
            added.low = added.high = low
        while added.low < low:
            add(state, a, given[added.low], True)
            added.low += 1
        while added.high < high:
            add(state, a, given[added.high], False)
            added.high += 1

    cdef int refold(
        self, Window* window, int s, const int64_t* times, int64_t low, int64_t high
    ) except -1 nogil:
        """A state over its range again."""
        cdef int64_t j = low
        cdef const State* state = &window.states[s]
        cdef const Value** given = self.given + state.column * self.room
        cdef Acc* a = &window.accs[s]
        reset(state, a)
        if state.kind == RANKED:
            j = from_end(state, times, given, low, high)
        while j < high:
            if state.kind == FIRST and a.count and times[j] > (<Ranked*> a.items)[a.start].event:
                break
            update(state, a, times[j], given[j])
            j += 1
        return 0

    # ---- values ----

    cdef object array(self, int number, Py_ssize_t m):
        """What was made of an output; the array's memory is this object's."""
        cdef Made* made = &self.made[number]
        dtype = parse_dtype(self.program.outputs[<int> self.wanted[number]].dtype)
        given = np.frombuffer(self.memory(&made.present), np.bool_)
        present = None if given.all() else bits_of(given)
        if not dtype.is_list:
            return self.plain(arrow_type(dtype), m, present, made.dtype, &made.ends, &made.data)
        kind = arrow_type(dtype)
        items = self.plain(kind.value_type, made.n_items, None, made.dtype, &made.item_ends, &made.data)
        return pa.Array.from_buffers(kind, m, [present, self.from_0(&made.ends)], children=[items])

    cdef object plain(
        self, kind, Py_ssize_t n, present, int dtype, const Buffer* ends, const Buffer* data
    ):
        """An array of scalars."""
        values = self.memory(data)
        if is_heap(dtype):
            return pa.Array.from_buffers(kind, n, [present, self.from_0(ends), values])
        if dtype == BOOL:
            values = bits_of(np.frombuffer(values, np.bool_))
        return pa.Array.from_buffers(kind, n, [present, values])

    cdef object memory(self, const Buffer* buffer):
        if not buffer.size:
            return pa.py_buffer(b"")
        return pa.foreign_buffer(<uintptr_t> buffer.data, buffer.size, self)

    cdef object from_0(self, const Buffer* ends):
        return pa.py_buffer(b"\0\0\0\0" + self.memory(ends).to_pybytes())


cdef void check_ranges(starts, times, Py_ssize_t length) except *:
    """Raise ValueError unless starts rise from 0 to the number of times."""
    rising = len(starts) == length and length and not (np.diff(starts) < 0).any()
    if not rising or starts[0] or starts[-1] != len(times):
        raise ValueError("starts rise from 0 to the number of times, of events and labels alike")


cdef int64_t most(starts) except -1:
    """Of any entity."""
    return int(np.max(np.diff(starts), initial=0))


cdef inline void fetch(const Column* column, int dtype, int64_t i) noexcept nogil:
    if is_heap(dtype):
        __builtin_prefetch(column.ends + i, 0, 0)
    elif dtype != BOOL:
        __builtin_prefetch(column.data + (column.offset + i) * width_of(dtype), 0, 0)


cdef inline int64_t first_after(const int64_t* times, int64_t low, int64_t high, int64_t t) noexcept nogil:
    """The first of times[low … high] that is after t, or high; it is looked for from low on."""
    cdef int64_t left = 8, half
    while low + left < high and times[low + left - 1] <= t:
        low += left
        left *= 2
    left = min(left, high - low)
    while left > 0:
        half = (left + 1) >> 1
        low += half * (times[low + half - 1] <= t)
        left -= half
    return low


cdef inline void add(const State* state, Acc* a, const Value* value, bint drop) noexcept nogil:
    """To a sum, or away from it; NULL for null."""
    cdef bint squared = state.kind == SQUARES
    if value == NULL:
        return
    if not is_float(state.dtype):
        exact_put_int(&a.exact, value.key, squared, -1 if drop else 1)
    else:
        exact_put_double(&a.exact, number_of(state.dtype, value.key), squared, -1 if drop else 1)


cdef inline int64_t from_end(
    const State* state, const int64_t* times, const Value** given, int64_t low, int64_t high
) noexcept nogil:
    """Where the last n values begin, with all of the time of the first of them."""
    cdef int64_t j = high, left = state.n
    while j > low and left > 0:
        j -= 1
        left -= given[j] != NULL
    while j > low and times[j - 1] == times[j]:
        j -= 1
    return j


cdef object bits_of(given):
    return pa.py_buffer(np.packbits(given, bitorder="little"))
