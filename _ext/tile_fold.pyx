"""Folds tile rows into rows of values, a batch at a time; fastserve/aggregations/fold_py.py is the twin.

The windows of a level are nested: each is the newest tiles from some index on. So a level has a ring for each
window, by length, and a tile goes into the innermost ring that it belongs to, once; from the shortest window
outwards, each ring is merged into the next one, whose outputs are ready then.

    older   | ring 2 | ring 1 | ring 0 |   now
            |<------- window 2 ------->|
                     |<-- window 1 --->|
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from buffers cimport load_stamp, store32, store_stamp
from crc32c cimport fs_crc32c_choose, row_crc
from exact cimport Exact, exact_init
from read_batch cimport (
    BORROWED, FOUND, UNKNOWN, Batch, Row, batch_key, batch_of, batch_row, key_at, key_size, owned_bytes,
    set_row
)
from row_check cimport HEADER
from tile_bytes cimport FITS, take_index, take_tile
from tile_check cimport is_tile_row, newest_fits
from tile_finals cimport Final, finalize
from tile_program cimport Level, Output, Program, State, first_tile, free_program, load_program
from tile_states cimport Acc, free_accs, merge, new_accs, reset
from tile_values cimport Value, is_heap, width_of, word_of
from varint cimport Reader, take_unsigned

from fastserve.aggregations.fold_py import check_outputs
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.aggregations.wire_py import MISFIT
from fastserve.codec.decoded import corrupt
from fastserve.codec.layout import FORMAT_VERSION
from fastserve.errors import TooLargeError
from fastserve.types import SCALARS

fs_crc32c_choose()

cdef uint8_t ROW_VERSION = FORMAT_VERSION
cdef int64_t U32_MAX = 0xFFFFFFFF


# Where a field is in the row that is made.
cdef struct Place:
    int dtype           # tile_values.Type, of a list of its items
    bint listed
    Py_ssize_t offset   # of a value of fixed width
    Py_ssize_t slot     # of others: which of the heap fields


@cython.final
cdef class Folder:
    """See the twin."""

    cdef readonly object program, layout, codec
    cdef Program p
    cdef Acc** rings            # for each level: accs of ring 0, then 1, …
    cdef int64_t* firsts        # for each ring of the level at hand its first tile
    cdef Final* finals          # for each output
    cdef Place* places
    cdef Exact work
    cdef Py_ssize_t ends_start, heap_start
    cdef uint16_t layout_id

    def __init__(self, program, layout):
        cdef int i
        check_outputs(program, layout)
        if self.program is not None:
            raise TypeError("a Folder is made once")
        self.program, self.layout = program, layout
        self.codec = TileCodec(program, layout.layout_id)
        self.layout_id = layout.layout_id
        self.ends_start, self.heap_start = layout.ends_start, layout.heap_start
        load_program(&self.p, program, {name: scalar.code for name, scalar in SCALARS.items()})
        self.rings = <Acc**> calloc(self.p.n_levels + 1, sizeof(Acc*))
        self.firsts = <int64_t*> calloc(self.p.n_outputs + 1, sizeof(int64_t))
        self.finals = <Final*> calloc(self.p.n_outputs + 1, sizeof(Final))
        self.places = <Place*> calloc(self.p.n_outputs + 1, sizeof(Place))
        if self.rings == NULL or self.firsts == NULL or self.finals == NULL or self.places == NULL:
            raise MemoryError
        if exact_init(&self.work):
            raise MemoryError
        for i in range(self.p.n_levels):
            self.rings[i] = self.new_rings(&self.p.levels[i])
        for i, dtype in enumerate(layout.dtypes):
            self.places[i].dtype = SCALARS[dtype.item].code
            self.places[i].listed = dtype.is_list
            self.places[i].offset, self.places[i].slot = layout.offsets[i], layout.heap_slots[i]

    cdef Acc* new_rings(self, const Level* level) except NULL:
        """Accs of each ring of a level, end to end."""
        cdef int r
        cdef Py_ssize_t n = level.n_states
        cdef State* states = <State*> calloc(n * level.rings + 1, sizeof(State))
        if states == NULL:
            raise MemoryError
        try:
            for r in range(level.rings):
                memcpy(states + r * n, &self.p.states[level.first], n * sizeof(State))
            return new_accs(states, n * level.rings)
        finally:
            free(states)

    def __dealloc__(self):
        cdef int i
        for i in range(self.p.n_levels if self.rings != NULL else 0):
            free_accs(self.rings[i], self.p.levels[i].rings * self.p.levels[i].n_states)
        free(self.rings)
        free(self.firsts)
        free(self.finals)
        free(self.places)
        free(self.work.digits)
        free_program(&self.p)

    def fold_into(self, batch, Py_ssize_t start, Py_ssize_t stop, out, Py_ssize_t at, *, int64_t now_us):
        """Rows start … stop of a batch become rows at … of out."""
        cdef Batch* source = batch_of(batch)
        cdef Batch* to = batch_of(out)
        cdef Py_ssize_t i
        cdef Row* row
        if not 0 <= start <= stop <= source.n or not 0 <= at <= to.n - (stop - start):
            raise IndexError(f"rows {start} … {stop} of {source.n} keys into {at} … of {to.n}")
        for i in range(start, stop):
            row = &source.rows[i]
            if row.state == FOUND:
                self.fold(source, i, to, at + i - start, now_us)
            elif row.state != UNKNOWN:
                set_row(to, at + i - start, NULL, 0, row.flags & <uint8_t> ~BORROWED, row.fetched_us)

    cdef int fold(self, const Batch* source, Py_ssize_t i, Batch* to, Py_ssize_t at, int64_t now) except -1:
        """One row."""
        cdef const Row* row = &source.rows[i]
        cdef Reader data
        cdef int64_t newest
        cdef int level
        if not is_tile_row(source, i, self.layout_id):
            raise self.codec.refused(batch_key(source, i), batch_row(source, i))
        newest = load_stamp(row.data + 8)
        data.at, data.end = <const uint8_t*> row.data + HEADER, <const uint8_t*> row.data + row.size
        if not newest_fits(row.data):
            raise self.misfit(source, i)
        for level in range(self.p.n_levels):
            if not self.fold_level(&data, level, max(now, newest)):
                raise self.misfit(source, i)
        if data.at != data.end:
            raise self.misfit(source, i)
        self.write(row, to, at, min(now, newest))
        return 0

    cdef object misfit(self, const Batch* source, Py_ssize_t i):
        return corrupt(batch_key(source, i), MISFIT, self.layout.layout_id, HEADER)

    cdef int fold_level(self, Reader* data, int number, int64_t at) except -1:
        """Read a level's tiles and finalize its outputs; 0 if the bytes are no such tiles."""
        cdef const Level* level = &self.p.levels[number]
        cdef const State* states = &self.p.states[level.first]
        cdef Acc* accs = self.rings[number]
        cdef Acc* ring
        cdef uint64_t tiles
        cdef int64_t index = 0
        cdef int r, last = level.rings - 1
        cdef bint first = True
        for r in range(level.rings):
            self.firsts[r] = first_tile(at, level.windows[r], level.hop)
            self.reset_ring(level, accs + r * level.n_states)
        r = last
        if not take_unsigned(data, &tiles, 0):
            return 0
        while tiles:
            if not take_index(data, level, first, &index):
                return 0
            while r > 0 and index >= self.firsts[r - 1]:
                r -= 1
            ring = accs + r * level.n_states if r >= 0 and index >= self.firsts[r] else NULL
            if take_tile(data, level, states, ring, index) != FITS:
                return 0
            first = False
            tiles -= 1
        self.finish_level(number, accs)
        return 1

    cdef void reset_ring(self, const Level* level, Acc* accs) noexcept:
        cdef int s
        for s in range(level.n_states):
            reset(&self.p.states[level.first + s], &accs[s])

    cdef int finish_level(self, int number, Acc* accs) except -1:
        """From the shortest window outwards: its outputs, and then it is part of the next one."""
        cdef const Level* level = &self.p.levels[number]
        cdef const State* states = &self.p.states[level.first]
        cdef const Output* output
        cdef int r, s, o, n = level.n_states
        for r in range(level.rings):
            if r:
                for s in range(n):
                    merge(&states[s], &accs[r * n + s], &accs[(r - 1) * n + s])
            for o in range(self.p.n_outputs):
                output = &self.p.outputs[o]
                if output.level == number and output.ring == r:
                    self.finals[o] = finalize(output, states, accs + r * n, &self.work)
        return 0

    # ---- the row that is made ----

    cdef int write(self, const Row* tiles, Batch* to, Py_ssize_t at, int64_t event) except -1:
        """An ordinary row of the finals, docs/row-format.md."""
        cdef int64_t heap = 0, size = self.heap_start
        cdef int o
        cdef char* row
        for o in range(self.p.n_outputs):
            size += heap_bytes(&self.places[o], &self.finals[o])
        if size > U32_MAX:
            raise TooLargeError("a row is more than 4 GiB", where=f"key {batch_key(to, at)!r}")
        row = owned_bytes(to, size)
        memset(row, 0, self.heap_start)
        row[0] = ROW_VERSION
        memcpy(row + 2, &self.layout_id, 2)
        store_stamp(row + 8, event)
        memcpy(row + 16, tiles.data + 16, 8)
        for o in range(self.p.n_outputs):
            if self.finals[o].present:
                row[HEADER + (o >> 3)] |= <char> (1 << (o & 7))
            heap += write_field(&self.places[o], &self.finals[o], row, row + self.heap_start + heap)
            if self.places[o].slot >= 0:
                store32(row + self.ends_start + 4 * self.places[o].slot, <uint32_t> heap)
        store32(row + 4, row_crc(key_at(to, at), key_size(to, at), row, size))
        set_row(to, at, row, size, tiles.flags & <uint8_t> ~BORROWED, tiles.fetched_us)
        return 0


cdef int64_t heap_bytes(const Place* place, const Final* final) noexcept nogil:
    """What a value takes of the heap."""
    cdef int64_t i, size
    if not final.present or place.slot < 0:
        return 0
    if not place.listed:
        return final.text.size
    if not is_heap(place.dtype):
        return final.count * width_of(place.dtype)
    size = 4 + 4 * final.count
    for i in range(final.count):
        size += final.items[i].value.size
    return size


cdef int64_t write_field(const Place* place, const Final* final, char* row, char* heap) noexcept nogil:
    """Write a value; returns its bytes in the heap."""
    if not final.present:
        return 0
    if place.slot < 0:
        memcpy(row + place.offset, &final.word, width_of(place.dtype))
        return 0
    if place.listed:
        return write_list(place.dtype, final, heap)
    if final.text.size:
        memcpy(heap, final.text.data, final.text.size)
    return final.text.size


cdef int64_t write_list(int dtype, const Final* final, char* heap) noexcept nogil:
    """The items, the last one first."""
    cdef int64_t i, n = final.count, at = 0
    cdef const Value* value
    cdef uint64_t word
    cdef int width = width_of(dtype)
    if width:
        for i in range(n):
            word = word_of(dtype, final.items[n - 1 - i].value.key)
            memcpy(heap + i * width, &word, width)
        return n * width
    store32(heap, <uint32_t> n)
    for i in range(n):
        value = &final.items[n - 1 - i].value
        if value.size:
            memcpy(heap + 4 + 4 * n + at, value.data, value.size)
        at += value.size
        store32(heap + 4 + 4 * i, <uint32_t> at)
    return 4 + 4 * n + at
