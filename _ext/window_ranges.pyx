"""Windows at labels' times, from ranges of events; materializer/windows/ranges_py.py is the twin.

Events and labels stand by entity, then by time. An entity's events are gathered once; then for each window
both ends of its range move forward from label to label:

    EVENTS, COUNT, SUM, SQUARES      what enters is added, what leaves is taken away again: sums are exact
    MIN, MAX                         of what may still become the extreme: a queue that rises, or falls
    FIRST, LAST, LAST_N              from the range's ends inwards
    DISTINCT, QUANTILES              over the whole range again
"""

cimport cython
from libc.stdint cimport INT64_MIN, int64_t
from libc.stdlib cimport calloc, free, malloc

from arrow cimport Column
from buffers cimport Buffer, release
from exact cimport Exact, exact_drop_double, exact_drop_int, exact_init
from tile_finals cimport Final, finalize
from tile_program cimport (
    COUNT, EVENTS, FIRST, MAX, MIN, RANKED, SQUARES, SUM, Level, Output, Program, State, floor_div,
    free_program, load_program
)
from tile_states cimport Acc, Ranked, free_accs, new_accs, reset, update
from tile_values cimport (
    BOOL, Value, attach_values, is_float, is_heap, load_value, nan_key, number_of, width_of
)
from window_values cimport Made, put_final

import numpy as np
import pyarrow as pa

from fastserve.types import SCALARS, arrow_type, parse_dtype

cdef extern from * nogil:
    void __builtin_prefetch(const void* address, int write, int locality)

cdef enum:
    AHEAD = 24              # events on their way from memory


cdef struct Queue:          # of events of an entity, by number
    int64_t* items
    int64_t head
    int64_t tail

cdef struct Window:
    const Level* level
    const State* states     # of the level
    Acc* accs
    Queue* queues
    int64_t length
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
    cdef Made* made
    cdef int n_made
    cdef Output** finals        # of each output of the call
    cdef Column* columns
    cdef Exact work
    cdef Value* values          # of the entity at hand: column c's are values[c * room …]
    cdef const Value** given    # the same, NULL for null
    cdef bint* read             # of each column, whether an output wants it
    cdef int64_t room

    def __init__(self, program, outputs):
        cdef int i
        self.program, self.wanted = program, list(outputs)
        load_program(&self.p, program, {name: scalar.code for name, scalar in SCALARS.items()})
        self.n_made = len(self.wanted)
        self.made = <Made*> calloc(self.n_made + 1, sizeof(Made))
        self.finals = <Output**> calloc(self.n_made + 1, sizeof(Output*))
        self.windows = <Window*> calloc(self.n_made + 1, sizeof(Window))
        self.columns = <Column*> calloc(self.p.n_columns + 1, sizeof(Column))
        self.read = <bint*> calloc(self.p.n_columns + 1, sizeof(bint))
        if self.made == NULL or self.finals == NULL or self.windows == NULL or self.columns == NULL:
            raise MemoryError
        if self.read == NULL:
            raise MemoryError
        if exact_init(&self.work):
            raise MemoryError
        for i in range(self.n_made):
            self.finals[i] = &self.p.outputs[<int> self.wanted[i]]
            dtype = parse_dtype(program.outputs[<int> self.wanted[i]].dtype)
            self.made[i].dtype, self.made[i].is_list = dtype.scalar.code, dtype.is_list
            self.join(i)

    def __dealloc__(self):
        cdef int i, j
        for i in range(self.n_windows):
            free_accs(self.windows[i].accs, self.windows[i].level.n_states)
            for j in range(self.windows[i].level.n_states if self.windows[i].queues != NULL else 0):
                free(self.windows[i].queues[j].items)
            free(self.windows[i].queues)
            free(self.windows[i].used)
            free(self.windows[i].outputs)
        for i in range(self.n_made if self.made != NULL else 0):
            release(&self.made[i].present)
            release(&self.made[i].data)
            release(&self.made[i].ends)
            release(&self.made[i].item_ends)
        free(self.windows)
        free(self.made)
        free(self.finals)
        free(self.columns)
        free(self.values)
        free(self.given)
        free(self.read)
        free(self.work.digits)
        free_program(&self.p)

    cdef int join(self, int number) except -1:
        """Output `number` to the others of its window."""
        cdef Output* output = self.finals[number]
        cdef const Level* level = &self.p.levels[output.level]
        cdef int64_t length = level.windows[output.ring]
        cdef Window* window
        cdef int i
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
            window.used[output.states[i]] = True
            if window.states[output.states[i]].column >= 0:
                self.read[window.states[output.states[i]].column] = True
        return 0

    cdef int open(self, int i, const Level* level, int64_t length) except -1:
        cdef Window* window = &self.windows[i]
        window.level, window.length = level, length
        window.states = &self.p.states[level.first]
        self.n_windows += 1
        window.accs = new_accs(window.states, level.n_states)
        window.queues = <Queue*> calloc(level.n_states + 1, sizeof(Queue))
        window.used = <bint*> calloc(level.n_states + 1, sizeof(bint))
        window.outputs = <int*> calloc(self.n_made + 1, sizeof(int))
        if window.queues == NULL or window.used == NULL or window.outputs == NULL:
            raise MemoryError
        return 0

    def run(self, tuple events, tuple labels):
        """The values."""
        cdef const int64_t[::1] starts = events[0]
        cdef const int64_t[::1] order = events[1]
        cdef const int64_t[::1] times = events[2]
        cdef const int64_t[::1] label_starts = labels[0]
        cdef const int64_t[::1] label_times = labels[1]
        check_ranges(events[0], events[1], len(label_starts))
        check_ranges(labels[0], labels[1], len(starts))
        check_ranges(events[0], events[2], len(label_starts))
        held = self.point_at(events[3], events[1])
        self.make_room(int(np.max(np.diff(events[0]), initial=0)))
        if len(label_times):
            with nogil:
                self.fold(starts, order, times, label_starts, label_times)
        del held
        return [self.array(i, len(label_times)) for i in range(self.n_made)]

    @cython.boundscheck(False)      # starts, order and times fit each other, which run has looked at
    @cython.wraparound(False)
    cdef int fold(
        self, const int64_t[::1] starts, const int64_t[::1] order, const int64_t[::1] times,
        const int64_t[::1] label_starts, const int64_t[::1] label_times
    ) except -1 nogil:
        """Every entity that has labels."""
        cdef Py_ssize_t k, w, n = order.shape[0]
        cdef const int64_t* at = &times[0] if n else NULL
        for k in range(starts.shape[0] - 1):
            if label_starts[k] < label_starts[k + 1]:
                if n:
                    self.gather(&order[0], starts[k], starts[k + 1], n)
                for w in range(self.n_windows):
                    self.slide(
                        &self.windows[w], at + starts[k] if n else NULL, starts[k + 1] - starts[k],
                        &label_times[label_starts[k]], label_starts[k + 1] - label_starts[k])
        return 0

    cdef list point_at(self, columns, order):
        """Point at the columns; what is returned keeps them alive."""
        cdef int c
        cdef list held = []
        least = int(np.max(order, initial=-1)) + 1
        if len(order) and np.min(order) < 0:
            raise ValueError("order names places of columns")
        if len(columns) != self.p.n_columns:
            raise ValueError(f"{len(columns)} columns were given, the program is of {self.p.n_columns}")
        for c, declared in enumerate(self.program.columns):
            column = columns[c]
            if len(column) < least or column.type != arrow_type(parse_dtype(declared.dtype)):
                raise ValueError(f"column {declared.name!r} is {column.type}[{len(column)}]")
            held.append(attach_values(&self.columns[c], self.p.dtypes[c], column))
        return held

    cdef int make_room(self, int64_t largest) except -1:
        """For an entity with so many events."""
        cdef int w, s
        cdef Window* window
        self.room = largest
        self.values = <Value*> malloc((largest * self.p.n_columns + 1) * sizeof(Value))
        self.given = <const Value**> malloc((largest * self.p.n_columns + 1) * sizeof(Value*))
        if self.values == NULL or self.given == NULL:
            raise MemoryError
        for w in range(self.n_windows):
            window = &self.windows[w]
            for s in range(window.level.n_states):
                if window.used[s] and (window.states[s].kind == MIN or window.states[s].kind == MAX):
                    window.queues[s].items = <int64_t*> malloc((largest + 1) * sizeof(int64_t))
                    if window.queues[s].items == NULL:
                        raise MemoryError
        return 0

    cdef void gather(self, const int64_t* order, int64_t start, int64_t stop, int64_t n) noexcept nogil:
        """The values of an entity's events, one after the other; those of the next are fetched meanwhile."""
        cdef int c, dtype
        cdef int64_t j
        cdef Value* value
        cdef const Value** given
        for c in range(self.p.n_columns):
            if not self.read[c]:
                continue
            dtype = self.p.dtypes[c]
            value, given = self.values + c * self.room, self.given + c * self.room
            for j in range(start, stop):
                if j + AHEAD < n:
                    fetch(&self.columns[c], dtype, order[j + AHEAD])
                given[0] = value if load_value(&self.columns[c], dtype, order[j], value) else NULL
                value += 1
                given += 1

    cdef int slide(
        self, Window* window, const int64_t* times, int64_t n, const int64_t* label_times, int64_t m
    ) except -1 nogil:
        """One window of one entity, from label to label."""
        cdef int64_t i, t, after, low = 0, high = 0
        cdef int o
        cdef Final value
        self.empty(window)
        for i in range(m):
            t = label_times[i]
            after = floor_div(t - window.length, window.level.hop) * window.level.hop
            while low < high and times[low] <= after:
                self.leave(window, low)
                low += 1
            if low == high:
                while low < n and times[low] <= after:
                    low += 1
                if high:
                    self.empty(window)
                high = low
            while high < n and times[high] <= t:
                self.enter(window, high)
                high += 1
            self.refold(window, times, low, high)
            for o in range(window.n_outputs):
                value = finalize(
                    self.finals[window.outputs[o]], window.states, window.accs, &self.work)
                put_final(&self.made[window.outputs[o]], &value)
        return 0

    cdef void empty(self, Window* window) noexcept nogil:
        cdef int s
        for s in range(window.level.n_states):
            if window.used[s]:
                reset(&window.states[s], &window.accs[s])
                window.queues[s].head = window.queues[s].tail = 0

    cdef int enter(self, Window* window, int64_t j) except -1 nogil:
        """Event j comes into the range."""
        cdef int s
        cdef const State* state
        cdef const Value* value
        for s in range(window.level.n_states):
            if not window.used[s]:
                continue
            state, value = &window.states[s], NULL
            if state.column >= 0:
                value = self.given[state.column * self.room + j]
            if state.kind <= SQUARES:
                update(state, &window.accs[s], 0, value)
            elif state.kind <= MAX and value != NULL:
                self.queue(window, s, j, value.key)
        return 0

    cdef void queue(self, Window* window, int s, int64_t j, int64_t key) noexcept nogil:
        """Of MIN the queue rises, of MAX it falls: what is behind a better one can never be the extreme."""
        cdef Queue* queue = &window.queues[s]
        cdef const State* state = &window.states[s]
        cdef const Value* values = self.values + state.column * self.room
        cdef int64_t mine = rank(state, key), last
        while queue.tail > queue.head:
            last = rank(state, values[queue.items[queue.tail - 1]].key)
            if last > mine if state.kind == MAX else last < mine:
                break
            queue.tail -= 1
        queue.items[queue.tail] = j
        queue.tail += 1

    cdef void leave(self, Window* window, int64_t j) noexcept nogil:
        """Event j leaves the range, being its first."""
        cdef int s
        cdef const State* state
        cdef const Value* value
        cdef Queue* queue
        cdef Acc* a
        for s in range(window.level.n_states):
            if not window.used[s]:
                continue
            state, a, value = &window.states[s], &window.accs[s], NULL
            if state.column >= 0:
                value = self.given[state.column * self.room + j]
            if state.kind == EVENTS:
                a.count -= 1
            elif value == NULL:
                pass
            elif state.kind == COUNT:
                a.count -= 1
            elif state.kind == SUM or state.kind == SQUARES:
                if is_float(state.dtype):
                    exact_drop_double(&a.exact, number_of(state.dtype, value.key), state.kind == SQUARES)
                else:
                    exact_drop_int(&a.exact, value.key, state.kind == SQUARES)
            elif state.kind <= MAX:
                queue = &window.queues[s]
                if queue.head < queue.tail and queue.items[queue.head] == j:
                    queue.head += 1

    cdef int refold(self, Window* window, const int64_t* times, int64_t low, int64_t high) except -1 nogil:
        """The states that do not slide."""
        cdef int s
        cdef int64_t j
        cdef const State* state
        cdef const Value** given
        cdef Acc* a
        for s in range(window.level.n_states):
            state, a = &window.states[s], &window.accs[s]
            if not window.used[s] or state.kind <= SQUARES:
                continue
            given = self.given + state.column * self.room
            if state.kind <= MAX:
                a.count = window.queues[s].head < window.queues[s].tail
                if a.count:
                    a.value = given[window.queues[s].items[window.queues[s].head]].key
                continue
            reset(state, a)
            j = from_end(state, times, given, low, high) if state.kind == RANKED else low
            while j < high:
                if state.kind == FIRST and a.count and times[j] > (<Ranked*> a.items)[a.start].event:
                    break
                update(state, a, times[j], given[j])
                j += 1
        return 0

    # ---- values ----

    cdef object array(self, int number, Py_ssize_t m):
        """What was made of an output."""
        cdef Made* made = &self.made[number]
        dtype = parse_dtype(self.program.outputs[<int> self.wanted[number]].dtype)
        present = bits_of(bytes_of(&made.present))
        if not dtype.is_list:
            return plain(arrow_type(dtype), m, present, made.dtype, &made.ends, &made.data)
        kind = arrow_type(dtype)
        items = plain(kind.value_type, made.n_items, None, made.dtype, &made.item_ends, &made.data)
        ends = pa.py_buffer(b"\0\0\0\0" + bytes_of(&made.ends))
        return pa.Array.from_buffers(kind, m, [present, ends], children=[items])


cdef void check_ranges(starts, times, Py_ssize_t length) except *:
    """Raise ValueError unless starts rise from 0 to the number of times."""
    rising = len(starts) == length and length and not (np.diff(starts) < 0).any()
    if not rising or starts[0] or starts[-1] != len(times):
        raise ValueError("starts rise from 0 to the number of times, of events and labels alike")


cdef inline void fetch(const Column* column, int dtype, int64_t i) noexcept nogil:
    if is_heap(dtype):
        __builtin_prefetch(column.ends + i, 0, 0)
    elif dtype != BOOL:
        __builtin_prefetch(column.data + (column.offset + i) * width_of(dtype), 0, 0)


cdef inline int64_t rank(const State* state, int64_t key) noexcept nogil:
    """Where a value stands for an extreme: NaN before all others of MIN, as it is after them of MAX."""
    if state.kind == MIN and is_float(state.dtype) and key == nan_key(state.dtype):
        return INT64_MIN
    return key


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


cdef bytes bytes_of(const Buffer* buffer):
    return buffer.data[:buffer.size] if buffer.size else b""


cdef object bits_of(bytes given):
    return pa.py_buffer(np.packbits(np.frombuffer(given, np.bool_), bitorder="little").tobytes())


cdef object plain(kind, Py_ssize_t n, present, int dtype, const Buffer* ends, const Buffer* data):
    """An array of scalars."""
    if is_heap(dtype):
        firsts = pa.py_buffer(b"\0\0\0\0" + bytes_of(ends))
        return pa.Array.from_buffers(kind, n, [present, firsts, pa.py_buffer(bytes_of(data))])
    values = bits_of(bytes_of(data)) if dtype == BOOL else pa.py_buffer(bytes_of(data))
    return pa.Array.from_buffers(kind, n, [present, values])
