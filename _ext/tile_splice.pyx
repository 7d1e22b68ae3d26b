"""A row of history and the row that a stream goes on with, into one; aggregations/splice_py.py is the twin.

Both are walked along, level by level, and tiles copied as they are: but for the first one's index, a run of
them is one piece of bytes.
"""

cimport cython
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t
from libc.string cimport memcmp, memset

from buffers cimport Buffer, load_stamp, put, release, reserve
from crc32c cimport fs_crc32c_choose
from read_batch cimport FOUND, Batch, Row, batch_key, batch_of, batch_row, set_row
from row_check cimport HEADER
from tile_bytes cimport FITS, take_tile
from tile_check cimport is_tile_row, newest_fits
from tile_program cimport Level, Program, first_tile, floor_div, free_program, load_program
from tile_walk cimport Made, Walk, advance, begin, begin_row, put_index, same_keys, set_tile_row
from varint cimport put_unsigned

from fastserve.aggregations.build_py import check_base
from fastserve.aggregations.splice_py import check_settled
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.aggregations.wire_py import MISFIT
from fastserve.codec.decoded import corrupt
from fastserve.errors import TooLargeError
from fastserve.types import SCALARS

fs_crc32c_choose()

cdef int64_t U32_MAX = 0xFFFFFFFF

cdef enum Broken:       # which of the rows is no row of tiles
    NEITHER = 0
    HISTORY = 1
    HELD = 2


@cython.final
cdef class TileSplicer:
    """See the twin."""

    cdef readonly object program, codec
    cdef Program p
    cdef uint16_t layout_id
    cdef Buffer row, tiles      # the row at hand; the tiles of its level at hand
    # of one row
    cdef int64_t settled, newest
    cdef bint goes_on           # the stream's row has events that are not settled

    def __init__(self, program, int layout_id):
        if self.program is not None:
            raise TypeError("a TileSplicer is made once")
        self.program, self.layout_id = program, layout_id
        self.codec = TileCodec(program, layout_id)
        load_program(&self.p, program, {name: scalar.code for name, scalar in SCALARS.items()})

    def __dealloc__(self):
        release(&self.row)
        release(&self.tiles)
        free_program(&self.p)

    def splice_into(self, out, history, held, *, settled_us, int64_t created_us):
        """The row that each key is to hold; none where it is to hold what it does."""
        cdef Batch* to = batch_of(out)
        cdef Batch* new = batch_of(history)
        cdef Batch* old = batch_of(held)
        cdef Py_ssize_t i
        cdef const int64_t[:] settled
        check_base(same_keys(to, new) and same_keys(to, old))
        check_settled(settled_us, to.n)
        settled = settled_us
        for i in range(to.n):
            self.settled = settled[i]
            self.splice(to, new, old, i, created_us)

    # ---- a row ----

    cdef int splice(self, Batch* to, Batch* new, Batch* old, Py_ssize_t i, int64_t created) except -1:
        """The row of key i."""
        cdef const Row* ours = NULL
        cdef const Row* theirs = NULL
        cdef int broken
        if new.rows[i].state == FOUND:
            ours = &new.rows[i]
            if not is_tile_row(new, i, self.layout_id):
                raise self.codec.refused(batch_key(new, i), batch_row(new, i))
        if old.rows[i].state == FOUND and is_tile_row(old, i, self.layout_id):
            theirs = &old.rows[i]
        broken = self.put_row(ours, theirs)
        if broken == HELD:
            theirs = NULL
            broken = self.put_row(ours, NULL)
        if broken == HISTORY:
            raise corrupt(batch_key(to, i), MISFIT, self.layout_id, HEADER)
        if self.row.size == 0 or (theirs != NULL and self.is_same(theirs)):
            set_row(to, i, NULL, 0, 0, 0)
            return 0
        if self.row.size > U32_MAX:
            raise TooLargeError("a row is more than 4 GiB", where=f"key {batch_key(to, i)!r}")
        return set_tile_row(to, i, &self.row, self.layout_id, self.newest, created)

    cdef bint is_same(self, const Row* held) noexcept:
        """But for when it was written."""
        return (
            held.size == self.row.size and load_stamp(held.data + 8) == self.newest
            and memcmp(held.data + HEADER, self.row.data + HEADER, held.size - HEADER) == 0)

    cdef int put_row(self, const Row* ours, const Row* theirs) except -1:
        """Both rows' tiles behind room for a head, or nothing; which of the rows is Broken."""
        cdef Walk one, other
        cdef int level, broken
        self.row.size = 0
        if ours != NULL and not newest_fits(ours.data):
            return HISTORY
        if theirs != NULL and not newest_fits(theirs.data):
            return HELD
        if ours == NULL and theirs == NULL:
            return NEITHER
        begin_row(&one, ours)
        begin_row(&other, theirs)
        self.newest = load_stamp(theirs.data + 8) if theirs != NULL else load_stamp(ours.data + 8)
        self.goes_on = theirs != NULL and self.newest > self.settled
        if ours != NULL and not self.goes_on:
            self.newest = load_stamp(ours.data + 8)
        reserve(&self.row, HEADER)
        memset(self.row.data, 0, HEADER)
        self.row.size = HEADER
        for level in range(self.p.n_levels):
            broken = self.put_level(
                &self.p.levels[level], &one if ours != NULL else NULL, &other if theirs != NULL else NULL)
            if broken:
                return broken
        if other.data.at != other.data.end:
            return HELD
        return NEITHER if one.data.at == one.data.end else HISTORY

    # ---- its tiles ----

    cdef int put_level(self, const Level* level, Walk* ours, Walk* theirs) except -1:
        """The tiles of a level; which of the rows is Broken. NULL for one that is not there."""
        cdef int64_t first = first_tile(self.newest, level.span, level.hop) if self.goes_on else INT64_MIN
        cdef int64_t cut = floor_div(self.settled, level.hop)
        cdef Made made
        made.count, made.last = 0, 0
        self.tiles.size = 0
        if theirs != NULL:
            if not begin(theirs, level) or not self.skip(level, theirs, max(first, cut)):
                return HELD
        if not self.goes_on:
            cut = INT64_MAX - 1
        elif theirs.left and theirs.index == cut:
            cut -= 1        # where both have the tile, the stream's holds
        if ours != NULL:
            if not begin(ours, level) or not self.skip(level, ours, first):
                return HISTORY
            if not self.copy(level, ours, &made, cut + 1) or not self.skip(level, ours, INT64_MAX):
                return HISTORY
        if theirs != NULL and self.goes_on and not self.copy(level, theirs, &made, INT64_MAX):
            return HELD
        if theirs != NULL and not self.skip(level, theirs, INT64_MAX):
            return HELD
        reserve(&self.row, 10)
        put_unsigned(&self.row, made.count)
        if made.count:
            put(&self.row, self.tiles.data, self.tiles.size)
        return NEITHER

    cdef bint read(self, const Level* level, Walk* walk) except -1:
        """The tile at hand, and on to the next one."""
        return take_tile(&walk.data, level, &self.p.states[level.first], NULL, walk.index) == FITS

    cdef int skip(self, const Level* level, Walk* walk, int64_t below) except -1:
        """Leave tiles below an index out; 0 if the bytes are none."""
        while walk.left and walk.index < below:
            if not self.read(level, walk) or not advance(walk, level):
                return 0
        return 1

    cdef int copy(self, const Level* level, Walk* walk, Made* made, int64_t below) except -1:
        """Tiles below an index, as they are; 0 if the bytes are none."""
        cdef const uint8_t* start = walk.data.at
        cdef const uint8_t* end
        if not walk.left or walk.index >= below:
            return 1
        put_index(&self.tiles, made, walk.index)
        made.count -= 1
        while True:
            if not self.read(level, walk):
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
