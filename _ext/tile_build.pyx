"""Builds tile rows of events, and into rows that are there; aggregations/build_py.py is the twin.

    events   dealt out into buckets of keys, each bucket put in order by itself
    plain    counts, sums, minima and maxima of new rows: many keys at once, see tile_runs.pxd
    other    a key's events by time, their values gathered once; of each level in turn: a tile is a run of
             events, so one Acc for each state is enough
    base     its tiles are walked along: copied where there are no new events, else read into the Accs first
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from arrow cimport Column
from buffers cimport Buffer, load_stamp, put, release, reserve
from crc32c cimport fs_crc32c_choose
from divide cimport divisor_of
from event_buckets cimport (
    AHEAD, Deal, Placed, bucket_start, count_events, deal, end_deal, free_room, keys_of, make_room,
    open_deal, order_by_key, order_by_unit
)
from event_order cimport Event, by_time
from read_batch cimport (
    FOUND, Batch, Row, batch_key, batch_of, batch_row, owned_bytes, owned_room, set_row
)
from row_check cimport HEADER
from tile_bytes cimport FITS, put_state, take_tile
from tile_check cimport is_tile_row, newest_fits
from tile_program cimport (
    EVENTS, Level, Program, State, first_tile, floor_div, free_program, load_program, tile_of
)
from tile_runs cimport Plain, load_part, plan_plain, point_levels, put_tiles, room_of_levels
from tile_states cimport Acc, free_accs, new_accs, reset, update
from tile_values cimport Value, attach_values, load_value, width_of
from tile_walk cimport Made, Walk, advance, begin, begin_row, put_index, same_keys, seal_row
from varint cimport put_unsigned

from threading import Lock

import numpy as np

from fastserve.aggregations.build_py import check_base, check_events, check_ranges
from fastserve.aggregations.tile_rows_py import EDGE_US, TileCodec
from fastserve.aggregations.wire_py import MISFIT
from fastserve.codec.decoded import corrupt
from fastserve.errors import TooLargeError
from fastserve.types import SCALARS

fs_crc32c_choose()

cdef int64_t U32_MAX = 0xFFFFFFFF, EDGE = EDGE_US

cdef enum:
    ROWS_AHEAD = 4
    PART = 512      # events of keys that are made at once, unless one has more

cdef extern from * nogil:
    void __builtin_prefetch(const void* at)


@cython.final
cdef class TileBuilder:
    """See the twin."""

    cdef readonly object program, codec
    cdef Program p
    cdef uint16_t layout_id
    cdef Acc* accs              # for each state of the program
    cdef Plain plain
    cdef object turn            # who holds it builds: threads take turns, for what follows is of one call
    cdef Buffer row, tiles      # the row at hand; the tiles of its level at hand
    # of one call
    cdef Column* columns
    cdef Deal dealt
    cdef bint by_runs           # whether rows are made of Plain's runs, where keys are not odd
    cdef int64_t origin         # of units of time: before all events
    cdef int64_t bucket         # the one at hand
    cdef Event* events          # of the key at hand, by time
    cdef Value* values          # of it: column c's are values[c * room …]
    cdef const Value** given    # the same, NULL for null
    cdef int64_t room
    cdef int64_t end_us, created_us, newest     # newest: of the key at hand

    def __init__(self, program, int layout_id):
        if self.program is not None:
            raise TypeError("a TileBuilder is made once")
        self.program, self.layout_id = program, layout_id
        self.codec = TileCodec(program, layout_id)
        load_program(&self.p, program, {name: scalar.code for name, scalar in SCALARS.items()})
        self.turn = Lock()
        plan_plain(&self.plain, &self.p)
        self.accs = new_accs(self.p.states, self.p.n_states)
        self.columns = <Column*> calloc(self.p.n_columns + 1, sizeof(Column))
        if self.columns == NULL:
            raise MemoryError

    def __dealloc__(self):
        free_accs(self.accs, self.p.n_states)
        self.free_events()
        free_room(&self.dealt)
        free(self.plain.room)
        free(self.columns)
        release(&self.row)
        release(&self.tiles)
        free_program(&self.p)

    cdef void free_events(self) noexcept nogil:
        end_deal(&self.dealt)
        free(self.events)
        free(self.values)
        free(self.given)
        self.events, self.values, self.given, self.room = NULL, NULL, NULL, 0

    def build_into(
        self, out, codes, event_us, columns, *, int64_t end_us, int64_t created_us, base=None
    ):
        """The tile row of each key of a batch."""
        cdef Batch* to = batch_of(out)
        cdef Batch* old = NULL
        check_events(self.program, codes, event_us, columns, end_us)
        cdef const int64_t[::1] code_of = np.ascontiguousarray(codes)
        cdef const int64_t[::1] time_of = np.ascontiguousarray(event_us)
        cdef int64_t n = code_of.shape[0]
        if n > U32_MAX or to.n > U32_MAX:
            raise TooLargeError("more than 2^32 events or keys at once", hint="build them in parts")
        if base is not None:
            old = batch_of(base)
            check_base(same_keys(to, old))
        cdef bint fit
        with self.turn:
            self.end_us, self.created_us = end_us, created_us
            _held = self.point_at(columns)
            try:
                with nogil:
                    open_deal(&self.dealt, to.n)
                    fit = self.deal_out(
                        &code_of[0] if n else NULL, &time_of[0] if n else NULL, n, old != NULL)
                    if fit:
                        self.build_all(to, old)
            finally:
                self.free_events()
        if not fit:
            check_ranges(to.n, codes, event_us)

    cdef list point_at(self, columns):
        """Point at the columns; what is returned keeps them alive."""
        cdef int c
        cdef list held = []
        for c in range(self.p.n_columns):
            held.append(attach_values(&self.columns[c], self.p.dtypes[c], columns[c]))
        return held

    cdef bint deal_out(
        self, const int64_t* codes, const int64_t* times, int64_t n, bint based
    ) except -1 nogil:
        """The events up to end_us by bucket; False if a code or a time is out of range."""
        cdef Deal* d = &self.dealt
        cdef int64_t last
        if not count_events(d, codes, times, n, self.end_us) or d.earliest < -EDGE or d.latest > EDGE:
            return False
        self.by_runs = self.plain.fits and not based and d.earliest <= self.end_us
        if self.by_runs:
            self.origin = floor_div(d.earliest - 1, self.plain.unit) * self.plain.unit
            last = min(d.latest, self.end_us) - 1 - self.origin
            self.by_runs = floor_div(last, self.plain.unit) <= U32_MAX
        if self.by_runs:
            point_levels(&self.plain, &self.p, self.origin)
        make_room(d, &self.plain.wanted if self.by_runs else NULL, self.columns)
        deal(d, codes, times, n, self.end_us, self.columns, self.p.dtypes)
        return True

    # ---- rows ----

    cdef int build_all(self, Batch* to, const Batch* old) except -1 nogil:
        cdef Deal* d = &self.dealt
        cdef int64_t b, k, keys
        for b in range(d.n_buckets):
            self.bucket = b
            keys = keys_of(d, b)
            if self.by_runs:
                order_by_unit(d, b, self.origin, divisor_of(self.plain.unit))
                self.build_parts(to, keys)
            else:
                order_by_key(d, b, NULL)
                for k in range(keys):
                    if old != NULL:
                        fetch_row(old, (b << d.bits) + k + ROWS_AHEAD)
                    self.build(to, old, k)
        return 0

    cdef int build_parts(self, Batch* to, int64_t keys) except -1 nogil:
        """Rows of a bucket's keys, some at a time, so that all of their runs are near."""
        cdef const uint32_t* ends = self.dealt.key_ends
        cdef int64_t first = 0, stop
        while first < keys:
            stop = first + 1
            while stop < keys and ends[stop] - (ends[first - 1] if first else 0) <= PART:
                stop += 1
            load_part(&self.plain, &self.p, &self.dealt, self.bucket, first, stop)
            self.put_part(to, first, stop)
            first = stop
        return 0

    cdef int put_part(self, Batch* to, int64_t first, int64_t stop) except -1 nogil:
        cdef const uint32_t* ends = self.dealt.key_ends
        cdef int64_t base = self.bucket << self.dealt.bits, k
        cdef int64_t start = ends[first - 1] if first else 0, at = start
        cdef bint made
        for k in range(first, stop):
            if ends[k] == at:
                set_row(to, base + k, NULL, 0, 0, 0)
                continue
            made = not self.plain.part.odd[k - first]
            if made:
                made = self.put_row(to, base + k, k - first, at - start, ends[k] - start)
            if not made:
                self.build(to, NULL, k)
            at = ends[k]
        return 0

    cdef bint put_row(self, Batch* to, Py_ssize_t i, int64_t k, int64_t start, int64_t stop) except -1 nogil:
        """The row of key i, which is the part's k, of its events start … stop; False if a sum is for Accs."""
        cdef int64_t newest = self.plain.part.newest[k]
        cdef char* row = owned_room(to, HEADER + room_of_levels(&self.plain, &self.p, start, stop))
        cdef char* out = row + HEADER
        cdef int level
        for level in range(self.p.n_levels):
            out = put_tiles(out, &self.plain.levels[level], self.plain.part.unit, start, stop, newest)
            if out == NULL:
                return False
        owned_bytes(to, out - row)
        self.seal(to, i, row, out - row, newest)
        return True

    cdef int seal(self, Batch* to, Py_ssize_t i, char* row, Py_ssize_t size, int64_t newest) except -1 nogil:
        """The head, and into the batch."""
        if size > U32_MAX:
            with gil:
                raise TooLargeError("a row is more than 4 GiB", where=f"key {batch_key(to, i)!r}")
        seal_row(to, i, row, size, self.layout_id, newest, self.created_us)
        return 0

    # ---- a row by Accs ----

    cdef int build(self, Batch* to, const Batch* old, int64_t k) except -1 nogil:
        """The row of the bucket's key k."""
        cdef Py_ssize_t i = (self.bucket << self.dealt.bits) + k
        cdef int64_t count
        cdef const Row* base = NULL
        cdef char* row
        if old != NULL and old.rows[i].state == FOUND:
            base = &old.rows[i]
            if not is_tile_row(old, i, self.layout_id):
                with gil:
                    raise self.codec.refused(batch_key(old, i), batch_row(old, i))
        count = self.gather(k)
        if base == NULL and not count:
            set_row(to, i, NULL, 0, 0, 0)
            return 0
        self.newest = self.events[count - 1].at if count else load_stamp(base.data + 8)
        if base != NULL:
            self.newest = max(self.newest, load_stamp(base.data + 8))
        self.row.size = 0
        reserve(&self.row, HEADER)
        self.row.size = HEADER
        if not self.put_levels(base, self.events, count):
            with gil:
                raise corrupt(batch_key(to, i), MISFIT, self.layout_id, HEADER)
        row = owned_bytes(to, self.row.size)
        memcpy(row, self.row.data, self.row.size)
        self.seal(to, i, row, self.row.size, self.newest)
        return 0

    cdef int64_t gather(self, int64_t k) except -1 nogil:
        """The events of a key and their values, so that they lie in order for all levels; how many."""
        cdef const Deal* d = &self.dealt
        cdef int64_t start = d.key_ends[k - 1] if k else 0, count = d.key_ends[k] - start, j
        cdef int64_t left = d.ends[self.bucket] - bucket_start(d, self.bucket) - start
        cdef const Placed* placed = d.placed + bucket_start(d, self.bucket)
        cdef const uint32_t* order = d.order + start
        cdef int c, width
        cdef Value* value
        self.reserve_events(count)
        for j in range(count):
            self.events[j].at, self.events[j].index = placed[order[j]].at, placed[order[j]].index
        by_time(self.events, count)
        for c in range(self.p.n_columns):
            width = width_of(self.p.dtypes[c])
            for j in range(count):
                if width and j + AHEAD < left:
                    __builtin_prefetch(
                        self.columns[c].data
                        + (self.columns[c].offset + placed[order[j + AHEAD]].index) * width)
                value = &self.values[c * self.room + j]
                self.given[c * self.room + j] = (
                    value if load_value(&self.columns[c], self.p.dtypes[c], self.events[j].index, value)
                    else NULL)
        return count

    cdef int reserve_events(self, int64_t count) except -1 nogil:
        """Room for so many events of a key."""
        cdef int64_t room = max(2 * self.room, count, 64)
        if count <= self.room:
            return 0
        free(self.events)
        free(self.values)
        free(self.given)
        self.room = room
        self.events = <Event*> malloc(room * sizeof(Event))
        self.values = <Value*> malloc(room * (self.p.n_columns + 1) * sizeof(Value))
        self.given = <const Value**> malloc(room * (self.p.n_columns + 1) * sizeof(Value*))
        if self.events == NULL or self.values == NULL or self.given == NULL:
            self.room = 0
            raise MemoryError
        return 0

    # ---- its tiles ----

    cdef int put_levels(self, const Row* base, const Event* events, int64_t count) except -1 nogil:
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
    ) except -1 nogil:
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

    cdef int keep(self, const Level* level, Walk* walk, Made* made, int64_t below) except -1 nogil:
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

    cdef void begin_tile(self, const Level* level) noexcept nogil:
        cdef int s
        for s in range(level.first, level.first + level.n_states):
            reset(&self.p.states[s], &self.accs[s])

    cdef int read(self, const Level* level, Walk* walk, Acc* accs) except -1 nogil:
        """The base's tile at hand, into the level's Accs unless they are NULL."""
        return take_tile(&walk.data, level, &self.p.states[level.first], accs, walk.index) == FITS

    cdef int put_tile(
        self, const Level* level, int64_t since, const Event* events, int64_t start, int64_t stop
    ) except -1 nogil:
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


cdef inline void fetch_row(const Batch* batch, Py_ssize_t i) noexcept nogil:
    """Ask for a row's memory, or the beginning of it, before it is needed."""
    cdef Py_ssize_t at = 0
    if i < batch.n and batch.rows[i].data != NULL:
        while at < min(<Py_ssize_t> batch.rows[i].size, 1024):
            __builtin_prefetch(batch.rows[i].data + at)
            at += 64


cdef int64_t first_after(const Event* events, int64_t count, int64_t at) noexcept nogil:
    """The first of the events, which are in order, that is later than at."""
    cdef int64_t low = 0, high = count, middle
    while low < high:
        middle = (low + high) >> 1
        if events[middle].at > at:
            high = middle
        else:
            low = middle + 1
    return low
