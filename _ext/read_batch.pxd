# The keys of one read and the rows found for them; header only: each module compiles its own copy.
#
#     text   1a:7 1a:9 2c:7 …            the keys, end to end
#     keys   {end, hash} x n             key i is text[keys[i - 1].end : keys[i].end]
#     rows   {data, size, state, …} x n  where row i lies; whose memory that is, Row says
#
# batch.pyx makes a Batch and owns it; other modules reach it through ReadBatch.capsule. They change it in
# place, on the event loop's thread, and keep the ReadBatch alive for as long as they hold the pointer.

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from buffers cimport Buffer, large_room, put, reserve
from hashing cimport fs_hash

cdef enum State:
    UNKNOWN = 0     # nobody has answered yet; decoded as UNAVAILABLE
    ABSENT = 1      # the store has no row
    FOUND = 2

cdef enum Flag:
    CACHED = 1      # the row, or its absence, comes from the cache, which takes only rows that were decoded once
    CHANGED = 2     # a writer changed the key while its row was on the way: do not cache it
    STALE = 4       # older than the view allows; answered because the store is down
    BORROWED = 8    # data is valid only until whoever set it returns to the event loop; own() copies


cdef struct Key:
    int64_t end
    uint64_t hash

cdef struct Row:
    const char* data        # FOUND: the row; else NULL
    uint32_t size
    uint8_t state           # State
    uint8_t flags           # Flag
    int64_t fetched_us      # no later than when the store was asked for it; the cache's time base

cdef enum:
    FIRST_BLOCK = 1 << 15
    LAST_BLOCK = 1 << 22

cdef struct Block:          # memory of owned rows; blocks never move
    Block* next
    Py_ssize_t size
    Py_ssize_t capacity

cdef struct Batch:
    Py_ssize_t n
    Py_ssize_t capacity     # of keys and rows
    Py_ssize_t missing      # rows that are UNKNOWN
    Buffer text
    Key* keys
    Row* rows
    Block* blocks
    uint64_t seed
    bint abandoned          # nobody waits for it: drop replies, call nobody


cdef inline Batch* batch_of(object batch) except NULL:
    """The Batch of a ReadBatch; borrowed."""
    return <Batch*> PyCapsule_GetPointer(batch.capsule, "fastserve.batch")


cdef inline const char* key_at(const Batch* batch, Py_ssize_t i) noexcept nogil:
    return batch.text.data + (batch.keys[i - 1].end if i else 0)


cdef inline Py_ssize_t key_size(const Batch* batch, Py_ssize_t i) noexcept nogil:
    return batch.keys[i].end - (batch.keys[i - 1].end if i else 0)


cdef inline bytes batch_key(const Batch* batch, Py_ssize_t i):
    """A copy of key i; for messages."""
    return key_at(batch, i)[:key_size(batch, i)]


cdef inline bytes batch_row(const Batch* batch, Py_ssize_t i):
    """A copy of row i, which is FOUND; for messages."""
    return batch.rows[i].data[:batch.rows[i].size]


# ---- keys --------------------------------------------------------------------------------------


cdef inline int reserve_keys(Batch* batch, Py_ssize_t extra) except -1:
    """Make room for `extra` more keys and their rows; for half as many again where they come one by one."""
    cdef Py_ssize_t wanted = batch.n + extra, grown = batch.capacity + (batch.capacity >> 1)
    cdef Key* keys
    cdef Row* rows
    if wanted <= batch.capacity:
        return 0
    if wanted < grown:
        wanted = grown
    keys = <Key*> realloc(batch.keys, wanted * sizeof(Key))
    if keys == NULL:
        raise MemoryError
    batch.keys = keys
    rows = <Row*> realloc(batch.rows, wanted * sizeof(Row))
    if rows == NULL:
        raise MemoryError
    batch.rows = rows
    batch.capacity = wanted
    reserve(&batch.text, 1)     # never NULL from here on, also where the first keys are empty
    return 0


cdef inline void close_key(Batch* batch) noexcept nogil:
    """What was put into text since the last key is the next one. reserve_keys has made room."""
    cdef Py_ssize_t i = batch.n, start = batch.keys[i - 1].end if i else 0
    batch.keys[i].end = batch.text.size
    batch.keys[i].hash = fs_hash(batch.seed, batch.text.data + start, batch.text.size - start)
    memset(&batch.rows[i], 0, sizeof(Row))
    batch.n = i + 1
    batch.missing += 1


cdef inline int add_key(Batch* batch, const char* data, Py_ssize_t size) except -1:
    reserve_keys(batch, 1)
    put(&batch.text, data, size)
    close_key(batch)
    return 0


# ---- rows --------------------------------------------------------------------------------------


cdef inline void set_row(
    Batch* batch, Py_ssize_t i, const char* data, Py_ssize_t size, uint8_t flags, int64_t fetched_us
) noexcept nogil:
    """Row i is known now: data NULL for none. With BORROWED in flags it must be own()ed to outlive the call."""
    cdef Row* row = &batch.rows[i]
    if row.state == UNKNOWN:
        batch.missing -= 1
    row.data = data
    row.size = <uint32_t> size
    row.state = ABSENT if data == NULL else FOUND
    row.flags = flags
    row.fetched_us = fetched_us


cdef inline char* owned_room(Batch* batch, Py_ssize_t size) except NULL nogil:
    """Room for so many bytes; owned_bytes of as many or fewer are there then. Blocks double, up to a few huge pages."""
    cdef Block* block = batch.blocks
    cdef Py_ssize_t total
    if block == NULL or size > block.capacity - block.size:
        total = FIRST_BLOCK if block == NULL else min(2 * (block.capacity + <Py_ssize_t> sizeof(Block)), LAST_BLOCK)
        total = max(total, size + <Py_ssize_t> sizeof(Block))
        block = <Block*> large_room(total)
        block.next, block.size, block.capacity = batch.blocks, 0, total - <Py_ssize_t> sizeof(Block)
        batch.blocks = block
    return <char*> (block + 1) + block.size


cdef inline char* owned_bytes(Batch* batch, Py_ssize_t size) except NULL nogil:
    """Memory that lives as long as the batch."""
    cdef char* out = owned_room(batch, size)
    batch.blocks.size += size
    return out


cdef inline int own_rows(Batch* batch) except -1:
    """Copy what is borrowed."""
    cdef Py_ssize_t i
    cdef Row* row
    cdef char* copy
    for i in range(batch.n):
        row = &batch.rows[i]
        if row.flags & BORROWED:
            if row.data != NULL:
                copy = owned_bytes(batch, row.size + (row.size == 0))
                memcpy(copy, row.data, row.size)
                row.data = copy
            row.flags = row.flags & <uint8_t> ~BORROWED
    return 0
