"""Builds tile rows of events, and into rows that are there; aggregations/build_py.py is the twin.

    events   a counting sort by code; each entity's by time; their values gathered once
    tiles    of each level in turn: a tile is a run of events, so one Acc for each state is enough
    base     its tiles are walked along: copied where there are no new events, else read into the Accs first
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from arrow cimport Column
from buffers cimport Buffer, load_stamp, put, release, reserve
from crc32c cimport fs_crc32c_choose
from event_order cimport Event, by_time
from read_batch cimport FOUND, Batch, Row, batch_key, batch_of, batch_row, set_row
from row_check cimport HEADER
from tile_bytes cimport FITS, put_state, take_tile
from tile_check cimport is_tile_row, newest_fits
from tile_program cimport EVENTS, Level, Program, State, first_tile, free_program, load_program, tile_of
from tile_states cimport Acc, free_accs, new_accs, reset, update
from tile_values cimport Value, attach_values, load_value, width_of
from tile_walk cimport Made, Walk, advance, begin, begin_row, put_index, same_keys, set_tile_row
from varint cimport put_unsigned

from fastserve.aggregations.build_py import check_base, check_events
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.aggregations.wire_py import MISFIT
from fastserve.codec.decoded import corrupt
from fastserve.errors import TooLargeError
from fastserve.types import SCALARS

fs_crc32c_choose()

cdef int64_t U32_MAX = 0xFFFFFFFF

cdef enum:
    AHEAD = 16      # events whose memory is asked for before they are needed: it lies anywhere

cdef extern from * nogil:
    void __builtin_prefetch(const void* at)


@cython.final
cdef class TileBuilder:
    """See the twin."""

    cdef readonly object program, codec
    cdef Program p
    cdef uint16_t layout_id
    cdef Acc* accs              # for each state of the program
    cdef Buffer row, tiles      # the row at hand; the tiles of its level at hand
    # of one call
    cdef Column* columns
    cdef Event* events          # by entity, then time
    cdef int64_t n_events
    cdef int64_t* ends          # entity i's are events[ends[i - 1] … ends[i]]
    cdef Value* values          # of the entity at hand: column c's are values[c * room …]
    cdef const Value** given    # the same, NULL for null
    cdef int64_t room
    cdef int64_t end_us, created_us, newest     # newest: of the entity at hand

    def __init__(self, program, int layout_id):
        if self.program is not None:
            raise TypeError("a TileBuilder is made once")
        self.program, self.layout_id = program, layout_id
        self.codec = TileCodec(program, layout_id)
        load_program(&self.p, program, {name: scalar.code for name, scalar in SCALARS.items()})
        self.accs = new_accs(self.p.states, self.p.n_states)
        self.columns = <Column*> calloc(self.p.n_columns + 1, sizeof(Column))
        if self.columns == NULL:
            raise MemoryError

    def __dealloc__(self):
        free_accs(self.accs, self.p.n_states)
        self.free_events()
        free(self.columns)
        release(&self.row)
        release(&self.tiles)
        free_program(&self.p)

    cdef void free_events(self) noexcept:
        free(self.events)
        free(self.ends)
        free(self.values)
        free(self.given)
        self.events, self.ends, self.values, self.given = NULL, NULL, NULL, NULL

    def build_into(
        self, out, codes, event_us, columns, *, int64_t end_us, int64_t created_us, base=None
    ):
        """The tile row of each key of a batch."""
        cdef Batch* to = batch_of(out)
        cdef Batch* old = NULL
        cdef Py_ssize_t i
        check_events(self.program, to.n, codes, event_us, columns, end_us)
        if base is not None:
            old = batch_of(base)
            check_base(same_keys(to, old))
        self.end_us, self.created_us = end_us, created_us
        _held = self.point_at(columns)
        try:
            self.sort(codes, event_us, to.n)
            for i in range(to.n):
                self.build(to, old, i)
        finally:
            self.free_events()

    cdef list point_at(self, columns):
        """Point at the columns; what is returned keeps them alive."""
        cdef int c
        cdef list held = []
        for c in range(self.p.n_columns):
            held.append(attach_values(&self.columns[c], self.p.dtypes[c], columns[c]))
        return held

    cdef int sort(self, const int64_t[:] codes, const int64_t[:] times, Py_ssize_t m) except -1:
        """The events up to end_us by entity, and each entity's by time."""
        cdef Py_ssize_t i, n = codes.shape[0]
        cdef int64_t at = 0, count, largest = 0
        self.ends = <int64_t*> calloc(m + 2, sizeof(int64_t))
        self.events = <Event*> malloc((n + 1) * sizeof(Event))
        if self.ends == NULL or self.events == NULL:
            raise MemoryError
        count_codes(codes, times, self.end_us, self.ends)
        for i in range(m):      # from how many to where they begin
            count = self.ends[i]
            self.ends[i] = at
            at += count
            largest = max(largest, count)
        place_events(codes, times, self.end_us, self.ends, self.events)
        at = 0
        for i in range(m):      # which is where they end now
            by_time(self.events + at, self.ends[i] - at)
            at = self.ends[i]
        self.n_events, self.room = at, largest
        self.values = <Value*> malloc((largest * self.p.n_columns + 1) * sizeof(Value))
        self.given = <const Value**> malloc((largest * self.p.n_columns + 1) * sizeof(Value*))
        if self.values == NULL or self.given == NULL:
            raise MemoryError
        return 0

    # ---- a row ----

    cdef int build(self, Batch* to, const Batch* old, Py_ssize_t i) except -1:
        """The row of key i."""
        cdef int64_t first = self.ends[i - 1] if i else 0
        cdef int64_t count = self.ends[i] - first
        cdef const Event* events = self.events + first
        cdef const Row* base = NULL
        if old != NULL and old.rows[i].state == FOUND:
            base = &old.rows[i]
            if not is_tile_row(old, i, self.layout_id):
                raise self.codec.refused(batch_key(old, i), batch_row(old, i))
        if base == NULL and not count:
            set_row(to, i, NULL, 0, 0, 0)
            return 0
        self.newest = events[count - 1].at if count else load_stamp(base.data + 8)
        if base != NULL:
            self.newest = max(self.newest, load_stamp(base.data + 8))
        self.gather(events, count)
        self.row.size = 0
        reserve(&self.row, HEADER)
        memset(self.row.data, 0, HEADER)
        self.row.size = HEADER
        if not self.put_levels(base, events, count):
            raise corrupt(batch_key(to, i), MISFIT, self.layout_id, HEADER)
        self.finish(to, i)
        return 0

    cdef void gather(self, const Event* events, int64_t count) noexcept:
        """The values of an entity's events, so that they lie in order for all levels."""
        cdef int c, width
        cdef int64_t j, left = self.events + self.n_events - events
        cdef Value* value
        for c in range(self.p.n_columns):
            width = width_of(self.p.dtypes[c])
            for j in range(count):
                if width and j + AHEAD < left:
                    __builtin_prefetch(
                        self.columns[c].data + (self.columns[c].offset + events[j + AHEAD].index) * width)
                value = &self.values[c * self.room + j]
                self.given[c * self.room + j] = (
                    value if load_value(&self.columns[c], self.p.dtypes[c], events[j].index, value) else NULL)

    cdef int finish(self, Batch* to, Py_ssize_t i) except -1:
        """The head, and into the batch."""
        if self.row.size > U32_MAX:
            raise TooLargeError("a row is more than 4 GiB", where=f"key {batch_key(to, i)!r}")
        return set_tile_row(to, i, &self.row, self.layout_id, self.newest, self.created_us)

    # ---- its tiles ----

    cdef int put_levels(self, const Row* base, const Event* events, int64_t count) except -1:
        """All levels; 0 if the base's bytes are no such tiles."""
        cdef Walk walk
        cdef Made made
        cdef int level
        begin_row(&walk, base)
        if base != NULL and not newest_fits(base.data):
            return 0
        for level in range(self.p.n_levels):
            if base != NULL and not begin(&walk, &self.p.levels[level]):
                return 0
            self.tiles.size = 0
            made.count, made.last = 0, 0
            if not self.put_level(&self.p.levels[level], &walk, &made, events, count):
                return 0
            reserve(&self.row, 10)
            put_unsigned(&self.row, made.count)
            if made.count:
                put(&self.row, self.tiles.data, self.tiles.size)
        return walk.data.at == walk.data.end

    cdef int put_level(
        self, const Level* level, Walk* walk, Made* made, const Event* events, int64_t count
    ) except -1:
        """The tiles of a level, the base's and the events' in one order; 0 if the base's bytes are none."""
        cdef int64_t first = first_tile(self.newest, level.span, level.hop), index, j, stop
        cdef bint both
        while walk.left and walk.index < first:
            if not self.read(level, walk, NULL) or not advance(walk, level):
                return 0
        j = first_after(events, count, first * level.hop)
        while j < count or walk.left:
            index = tile_of(events[j].at, level.hop) if j < count else INT64_MAX
            if walk.left and walk.index < index:
                if not self.keep(level, walk, made, index):
                    return 0
                continue
            both = walk.left and walk.index == index
            put_index(&self.tiles, made, index)
            self.begin_tile(level)
            if both and not self.read(level, walk, &self.accs[level.first]):
                return 0
            stop = j
            while stop < count and events[stop].at <= (index + 1) * level.hop:
                stop += 1
            self.put_tile(level, index * level.hop, events, j, stop)
            j = stop
            if both and not advance(walk, level):
                return 0
        return 1

    cdef int keep(self, const Level* level, Walk* walk, Made* made, int64_t below) except -1:
        """The base's tiles below an index as they are; but for the first one's index, bytes and all."""
        cdef const uint8_t* start = walk.data.at
        cdef const uint8_t* end
        put_index(&self.tiles, made, walk.index)
        made.count -= 1
        while True:
            if not self.read(level, walk, NULL):
                return 0
            end = walk.data.at
            made.count += 1
            made.last = walk.index
            if not advance(walk, level):
                return 0
            if not walk.left or walk.index >= below:
                break
        put(&self.tiles, <const char*> start, end - start)
        return 1

    cdef void begin_tile(self, const Level* level) noexcept:
        cdef int s
        for s in range(level.first, level.first + level.n_states):
            reset(&self.p.states[s], &self.accs[s])

    cdef int read(self, const Level* level, Walk* walk, Acc* accs) except -1:
        """The base's tile at hand, into the level's Accs unless they are NULL."""
        return take_tile(&walk.data, level, &self.p.states[level.first], accs, walk.index) == FITS

    cdef int put_tile(
        self, const Level* level, int64_t since, const Event* events, int64_t start, int64_t stop
    ) except -1:
        """Events start … stop, which are after `since`, on top of what the Accs hold, as bytes."""
        cdef int s
        cdef int64_t j
        cdef const State* state
        cdef const Value** given
        for s in range(level.first, level.first + level.n_states):
            state = &self.p.states[s]
            if state.kind == EVENTS:
                self.accs[s].count += stop - start
            else:
                given = &self.given[state.column * self.room]
                for j in range(start, stop):
                    if given[j] != NULL:
                        update(state, &self.accs[s], events[j].at, given[j])
            put_state(&self.tiles, state, &self.accs[s], since)
        return 0


# ---- events in order ----

@cython.boundscheck(False)      # times are as many as codes, and codes below m: check_events
@cython.wraparound(False)
cdef void count_codes(const int64_t[:] codes, const int64_t[:] times, int64_t end, int64_t* counts) noexcept:
    cdef Py_ssize_t i
    for i in range(codes.shape[0]):
        counts[codes[i]] += times[i] <= end


@cython.boundscheck(False)      # as in count_codes, which made the room
@cython.wraparound(False)
cdef void place_events(
    const int64_t[:] codes, const int64_t[:] times, int64_t end, int64_t* places, Event* events
) noexcept:
    cdef Py_ssize_t i
    cdef Event* event
    for i in range(codes.shape[0]):
        if i + AHEAD < codes.shape[0]:
            __builtin_prefetch(&events[places[codes[i + AHEAD]]])
        if times[i] <= end:
            event = &events[places[codes[i]]]
            places[codes[i]] += 1
            event.at = times[i]
            event.index = i


cdef int64_t first_after(const Event* events, int64_t count, int64_t at) noexcept:
    """The first of the events, which are in order, that is later than at."""
    cdef int64_t low = 0, high = count, middle
    while low < high:
        middle = (low + high) >> 1
        if events[middle].at > at:
            high = middle
        else:
            low = middle + 1
    return low
