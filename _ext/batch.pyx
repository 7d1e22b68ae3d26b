"""The keys of one read and the rows found for them; fastserve/batch/batch_py.py is the twin.

read_batch.pxd has the memory and what other modules do with it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from read_batch cimport (
    CACHED, CHANGED, FOUND, STALE, UNKNOWN, Batch, Block, add_key, key_at, key_size, own_rows, reserve_keys,
    set_row
)
from buffers cimport put, release

import os

from fastserve.errors import CodecError

cdef uint64_t SEED = int.from_bytes(os.urandom(8), "little")


@cython.final
cdef class ReadBatch:
    """See the twin."""

    cdef Batch batch
    cdef list held              # what rows lie in: objects that `fill` was given, batches of `take`
    cdef readonly object capsule

    def __cinit__(self, keys=()):
        memset(&self.batch, 0, sizeof(Batch))
        self.batch.seed = SEED
        self.capsule = PyCapsule_New(&self.batch, "fastserve.batch", NULL)
        for key in keys:
            add_key(&self.batch, PyBytes_AS_STRING(key), len(<bytes> key))

    def __dealloc__(self):
        cdef Block* block = self.batch.blocks
        cdef Block* after
        while block != NULL:
            after = block.next
            free(block)
            block = after
        release(&self.batch.text)
        free(self.batch.keys)
        free(self.batch.rows)

    @classmethod
    def from_packed(cls, bytes packed):
        """The batch of a change message: u16 length, key, …"""
        cdef ReadBatch self = cls()
        cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(packed)
        cdef Py_ssize_t at = 0, size, end = PyBytes_GET_SIZE(packed)
        while at < end:
            size = data[at] | data[at + 1] << 8 if at + 2 <= end else end
            at += 2
            if at + size > end:
                raise CodecError("a change message is cut short", where=f"offset {at - 2} of {end}")
            add_key(&self.batch, <const char*> data + at, size)
            at += size
        return self

    def __len__(self):
        return self.batch.n

    @property
    def missing(self):
        return self.batch.missing

    @property
    def abandoned(self):
        return self.batch.abandoned

    @property
    def size(self):
        cdef Py_ssize_t i, found = self.batch.text.size
        for i in range(self.batch.n):
            found += self.batch.rows[i].size
        return found

    def abandon(self):
        """Nobody waits any more."""
        self.batch.abandoned = True

    def keys(self, Py_ssize_t start=0, stop=None):
        cdef Py_ssize_t i
        return [
            PyBytes_FromStringAndSize(key_at(&self.batch, i), key_size(&self.batch, i))
            for i in range(start, self.end(stop))
        ]

    def missing_keys(self):
        cdef Py_ssize_t i
        return [
            PyBytes_FromStringAndSize(key_at(&self.batch, i), key_size(&self.batch, i))
            for i in range(self.batch.n) if self.batch.rows[i].state == UNKNOWN
        ]

    def rows(self, Py_ssize_t start=0, stop=None):
        cdef Py_ssize_t i
        return [
            PyBytes_FromStringAndSize(self.batch.rows[i].data, self.batch.rows[i].size)
            if self.batch.rows[i].state == FOUND else None
            for i in range(start, self.end(stop))
        ]

    def states(self, Py_ssize_t start=0, stop=None):
        cdef Py_ssize_t i
        return [self.batch.rows[i].state for i in range(start, self.end(stop))]

    def flags(self, Py_ssize_t start=0, stop=None):
        cdef Py_ssize_t i
        return [
            self.batch.rows[i].flags & (CACHED | CHANGED | STALE) for i in range(start, self.end(stop))
        ]

    def fetched_us(self, Py_ssize_t start=0, stop=None):
        cdef Py_ssize_t i
        return [self.batch.rows[i].fetched_us for i in range(start, self.end(stop))]

    def oldest_us(self, Py_ssize_t start=0, stop=None):
        cdef Py_ssize_t i
        cdef int64_t oldest = 0
        cdef bint any_known = False
        for i in range(start, self.end(stop)):
            if self.batch.rows[i].state != UNKNOWN:
                if not any_known or self.batch.rows[i].fetched_us < oldest:
                    oldest = self.batch.rows[i].fetched_us
                any_known = True
        return oldest if any_known else None

    def fill(self, rows, int64_t fetched_us):
        cdef Py_ssize_t i, at = 0
        cdef bytes row
        cdef list given = rows if type(rows) is list else list(rows)
        if len(given) != self.batch.missing:
            raise CodecError(f"{len(given)} rows for {self.batch.missing} missing keys")
        if self.held is None:
            self.held = []
        self.held.append(given)
        for i in range(self.batch.n):
            if self.batch.rows[i].state != UNKNOWN:
                continue
            row = given[at]
            at += 1
            if row is None:
                set_row(&self.batch, i, NULL, 0, 0, fetched_us)
            else:
                set_row(&self.batch, i, PyBytes_AS_STRING(row), PyBytes_GET_SIZE(row), 0, fetched_us)

    def take(self, ReadBatch other, Py_ssize_t start, Py_ssize_t stop):
        cdef Py_ssize_t i
        cdef Batch* to = &self.batch
        cdef const Batch* given = &other.batch
        other.end(stop)
        if not 0 <= start <= stop:
            raise IndexError(f"{start} to {stop}")
        reserve_keys(to, stop - start)
        for i in range(start, stop):
            put(&to.text, key_at(given, i), key_size(given, i))
            to.keys[to.n].end = to.text.size
            to.keys[to.n].hash = given.keys[i].hash     # of one seed
            to.rows[to.n] = given.rows[i]
            to.missing += given.rows[i].state == UNKNOWN
            to.n += 1
        if self.held is None:
            self.held = []
        self.held.append(other)

    def forget(self, rows):
        cdef Py_ssize_t i
        for i in rows:
            if not 0 <= i < self.batch.n:
                raise IndexError(f"{i} of {self.batch.n} keys")
            if self.batch.rows[i].state != UNKNOWN:
                memset(&self.batch.rows[i], 0, sizeof(self.batch.rows[i]))
                self.batch.missing += 1

    def own(self):
        own_rows(&self.batch)

    cdef Py_ssize_t end(self, object stop) except -1:
        if stop is None:
            return self.batch.n
        if stop > self.batch.n:
            raise IndexError(f"{stop} of {self.batch.n} keys")
        return stop
