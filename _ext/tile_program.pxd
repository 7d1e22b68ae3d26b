# A Program (fastserve/aggregations/program.py) as natives follow it; header only.

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free


cdef enum StateKind:
    EVENTS = 0
    COUNT = 1
    SUM = 2
    SQUARES = 3
    MIN = 4
    MAX = 5
    FIRST = 6
    RANKED = 7      # LAST, LAST_N
    DISTINCT = 8
    QUANTILES = 9


cdef enum Function:
    F_COUNT = 0
    F_SUM = 1
    F_MEAN = 2
    F_VAR = 3
    F_STD = 4
    F_MIN = 5
    F_MAX = 6
    F_FIRST = 7
    F_LAST = 8
    F_LAST_N = 9
    F_DISTINCT = 10
    F_QUANTILE = 11


cdef struct State:
    int kind            # StateKind
    int column          # -1 of EVENTS
    int dtype           # of the column: tile_values.Type; 0 of EVENTS
    int64_t n           # of FIRST and RANKED how many events, DISTINCT how many hashes, QUANTILES how many bits

cdef struct Level:
    int64_t hop
    int64_t span
    int64_t edge        # indices of tiles are within this of 0
    int first           # index of its first state in Program.states
    int n_states
    int rings           # how many windows it is folded over
    int64_t* windows    # these, rising

cdef struct Output:
    int function        # Function
    int level
    int ring            # which window, by length
    int states[3]       # among the level's
    double argument

cdef struct Program:
    int n_columns
    int* dtypes
    int n_levels
    Level* levels
    int n_states
    State* states
    int n_outputs
    Output* outputs


cdef inline int state_kind(str name) except -1:
    names = ("events", "count", "sum", "squares", "min", "max", "first", "last", "distinct", "quantiles")
    return RANKED if name == "last_n" else names.index(name)


cdef inline int function_of(str name) except -1:
    names = (
        "count", "sum", "mean", "var", "std", "min", "max", "first", "last", "last_n", "count_distinct",
        "approx_quantile")
    return names.index(name)


cdef inline int load_program(Program* p, object program, dict codes) except -1:
    """Fill in a zeroed Program; codes are fastserve.types' numbers of types. free_program also where this fails."""
    cdef int i, at = 0
    p.n_columns, p.n_levels, p.n_outputs = len(program.columns), len(program.levels), len(program.outputs)
    for level in program.levels:
        p.n_states += len(level.states)
    p.dtypes = <int*> calloc(p.n_columns + 1, sizeof(int))
    p.levels = <Level*> calloc(p.n_levels + 1, sizeof(Level))
    p.states = <State*> calloc(p.n_states + 1, sizeof(State))
    p.outputs = <Output*> calloc(p.n_outputs + 1, sizeof(Output))
    if p.dtypes == NULL or p.levels == NULL or p.states == NULL or p.outputs == NULL:
        raise MemoryError
    for i, column in enumerate(program.columns):
        p.dtypes[i] = codes[column.dtype]
    for i, level in enumerate(program.levels):
        p.levels[i].hop, p.levels[i].span = level.hop_us, level.span_us
        p.levels[i].edge = (<int64_t> 1 << 62) // p.levels[i].hop
        p.levels[i].first, p.levels[i].n_states = at, len(level.states)
        for state in level.states:
            load_state(p, &p.states[at], state)
            at += 1
        load_windows(&p.levels[i], i, program.outputs)
    for i, output in enumerate(program.outputs):
        load_output(p, &p.outputs[i], output)
    return 0


cdef inline int load_state(Program* p, State* to, object state) except -1:
    to.kind = state_kind(state.kind.value)
    to.column = state.column
    to.dtype = p.dtypes[to.column] if to.column >= 0 else 0
    to.n = 1 if state.kind.value in ("first", "last") else state.parameter
    return 0


cdef inline int load_windows(Level* level, int number, object outputs) except -1:
    cdef int i
    cdef set windows = set()
    for output in outputs:
        if output.level == number:
            windows.add(output.window_us)
    level.windows = <int64_t*> calloc(len(windows) + 1, sizeof(int64_t))
    if level.windows == NULL:
        raise MemoryError
    level.rings = len(windows)
    for i, window in enumerate(sorted(windows)):
        level.windows[i] = window
    return 0


cdef inline int load_output(Program* p, Output* to, object output) except -1:
    cdef int i
    cdef Level* level = &p.levels[<int> output.level]
    to.function = function_of(output.function)
    to.level = output.level
    to.argument = output.argument
    for i in range(level.rings):
        if level.windows[i] == output.window_us:
            to.ring = i
    for i, state in enumerate(output.states):
        to.states[i] = state
    return 0


cdef inline void free_program(Program* p) noexcept:
    cdef int i
    for i in range(p.n_levels if p.levels != NULL else 0):
        free(p.levels[i].windows)
    free(p.dtypes)
    free(p.levels)
    free(p.states)
    free(p.outputs)


@cython.cdivision(True)     # b is known to be positive, and C's rounding towards 0 is what is put right here
cdef inline int64_t floor_div(int64_t a, int64_t b) noexcept nogil:
    """Towards minus infinity; b > 0."""
    if b == 1:
        return a
    return a // b if a >= 0 else -((-a - 1) // b) - 1


cdef inline int64_t first_tile(int64_t at, int64_t window, int64_t hop) noexcept nogil:
    """The first tile of a window at an instant."""
    return floor_div(at - window, hop)


cdef inline int64_t tile_of(int64_t event, int64_t hop) noexcept nogil:
    return floor_div(event - 1, hop)
