# The keys that are being asked for, of all reads, and who waits for each; header only.
#
#     Slot    one key in flight. Slots stand in a ring in the order asked: the next reply is for the oldest.
#             A slot's number only grows, its place is number & mask
#     Waiter  one row of one Call that the slot's answer goes to: the first lies in the slot, more are chained
#     Call    one fetch: its batch, whom to call, how many waiters are still out
#     Table   hash of the key -> slot number, open addressing, never more than half full
#
# The text of a slot's key is that of its first waiter's batch, kept by the Call as long as it has waiters.

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

from read_batch cimport Batch, key_at, key_size


cdef struct Call:
    Batch* batch
    PyObject* holder            # the ReadBatch, held
    PyObject* done              # held
    Py_ssize_t waits            # waiters that name it; lists too
    Py_ssize_t unanswered       # waiters whose answer is out
    bint settled                # done was called, or will not be
    bint listed                 # in the list of calls with borrowed rows
    Call* next_ready
    Call* next_borrowed

cdef struct Waiter:
    Call* call
    int32_t row                 # of the call's batch
    int32_t next                # of the pool; -1: the last

cdef struct Slot:
    Waiter first
    uint64_t hash
    int64_t asked_us
    Py_ssize_t at               # where its row lies, from the beginning of the reply
    int32_t size                # of the row; -1: there is none
    bint changed                # a writer changed the key since it was asked for
    bint skipped                # nobody waited any more when the MGET was made: it is not in it
    bint tabled

cdef struct Entry:
    uint64_t hash
    uint64_t number             # of the slot, plus one; 0: free

cdef struct Flights:
    Slot* slots                 # ring
    uint64_t slots_mask
    uint64_t oldest             # numbers: [oldest, unsent) are sent, [unsent, next) wait for the tick's end
    uint64_t unsent
    uint64_t next
    Entry* table
    uint64_t table_mask
    uint64_t tabled
    Waiter* pool
    int32_t pool_size
    int32_t pool_free           # the first free one; -1: none


cdef inline int init_flights(Flights* self) except -1:
    self.slots = <Slot*> malloc(256 * sizeof(Slot))
    self.table = <Entry*> calloc(512, sizeof(Entry))
    if self.slots == NULL or self.table == NULL:
        raise MemoryError
    self.slots_mask, self.table_mask, self.pool_free = 255, 511, -1
    return 0


cdef inline void free_flights(Flights* self) noexcept:
    free(self.slots)
    free(self.table)
    free(self.pool)


# ---- calls -------------------------------------------------------------------------------------


cdef inline Call* new_call(Batch* batch, object holder, object done) except NULL:
    cdef Call* call = <Call*> calloc(1, sizeof(Call))
    if call == NULL:
        raise MemoryError
    call.batch = batch
    call.holder, call.done = <PyObject*> holder, <PyObject*> done
    call.waits = 1
    Py_INCREF(holder)
    Py_INCREF(done)
    return call


cdef inline void drop_call(Call* call) noexcept:
    """One that named it does no more; with the last the batch is let go."""
    call.waits -= 1
    if call.waits == 0:
        Py_XDECREF(call.holder)
        Py_XDECREF(call.done)
        free(call)


cdef inline bint is_wanted(const Call* call) noexcept:
    return not call.settled and not call.batch.abandoned


# ---- table -------------------------------------------------------------------------------------


cdef inline Slot* slot_at(Flights* self, uint64_t number) noexcept:
    return &self.slots[number & self.slots_mask]


cdef inline uint64_t find_slot(Flights* self, const Batch* batch, Py_ssize_t i) noexcept:
    """The number, plus one, of the slot of key i of a batch if it is in flight; else 0."""
    cdef uint64_t hash = batch.keys[i].hash
    cdef uint64_t place = hash & self.table_mask
    cdef Py_ssize_t size
    cdef Entry* entry
    cdef Slot* slot
    while True:
        entry = &self.table[place]
        if entry.number == 0:
            return 0
        if entry.hash == hash:
            slot = slot_at(self, entry.number - 1)
            size = key_size(batch, i)
            if (key_size(slot.first.call.batch, slot.first.row) == size and
                    memcmp(key_at(slot.first.call.batch, slot.first.row), key_at(batch, i), size) == 0):
                return entry.number
        place = (place + 1) & self.table_mask


cdef inline int grow_table(Flights* self) except -1:
    cdef uint64_t i, place, mask = self.table_mask * 2 + 1
    cdef Entry* table = <Entry*> calloc(mask + 1, sizeof(Entry))
    if table == NULL:
        raise MemoryError
    for i in range(self.table_mask + 1):
        if self.table[i].number:
            place = self.table[i].hash & mask
            while table[place].number:
                place = (place + 1) & mask
            table[place] = self.table[i]
    free(self.table)
    self.table, self.table_mask = table, mask
    return 0


cdef inline void untable(Flights* self, uint64_t number) noexcept:
    """The next read of the slot's key asks anew."""
    cdef Slot* slot = slot_at(self, number)
    cdef uint64_t hole = slot.hash & self.table_mask, place, home
    if not slot.tabled:
        return
    slot.tabled = False
    self.tabled -= 1
    while self.table[hole].number != number + 1:
        hole = (hole + 1) & self.table_mask
    place = hole
    while True:         # move back what the hole would cut off from its home
        place = (place + 1) & self.table_mask
        if self.table[place].number == 0:
            break
        home = self.table[place].hash & self.table_mask
        if ((place - home) & self.table_mask) >= ((place - hole) & self.table_mask):
            self.table[hole] = self.table[place]
            hole = place
    self.table[hole].number = 0


# ---- slots and waiters -------------------------------------------------------------------------


cdef inline int reserve_slots(Flights* self, uint64_t extra) except -1:
    """Make room for `extra` more slots and their entries."""
    cdef uint64_t number, mask = self.slots_mask
    cdef Slot* slots
    while (self.tabled + extra) * 2 > self.table_mask:
        grow_table(self)
    if self.next - self.oldest + extra <= mask + 1:
        return 0
    while self.next - self.oldest + extra > mask + 1:
        mask = mask * 2 + 1
    slots = <Slot*> malloc((mask + 1) * sizeof(Slot))
    if slots == NULL:
        raise MemoryError
    for number in range(self.oldest, self.next):
        slots[number & mask] = self.slots[number & self.slots_mask]
    free(self.slots)
    self.slots, self.slots_mask = slots, mask
    return 0


cdef inline void add_slot(Flights* self, Call* call, Py_ssize_t row, int64_t now_us) noexcept:
    """A key to ask for. reserve_slots has made room."""
    cdef Slot* slot = slot_at(self, self.next)
    cdef uint64_t place
    slot.hash = call.batch.keys[row].hash
    slot.asked_us = now_us
    slot.first.call, slot.first.row, slot.first.next = call, <int32_t> row, -1
    slot.at, slot.size, slot.changed, slot.skipped, slot.tabled = 0, -1, False, False, True
    place = slot.hash & self.table_mask
    while self.table[place].number:
        place = (place + 1) & self.table_mask
    self.table[place].hash, self.table[place].number = slot.hash, self.next + 1
    self.tabled += 1
    self.next += 1


cdef inline int grow_pool(Flights* self) except -1:
    cdef int32_t i, size = self.pool_size * 2 if self.pool_size else 256
    cdef Waiter* pool = <Waiter*> realloc(self.pool, size * sizeof(Waiter))
    if pool == NULL:
        raise MemoryError
    for i in range(self.pool_size, size):
        pool[i].next = i + 1 if i + 1 < size else -1
    self.pool_free, self.pool, self.pool_size = self.pool_size, pool, size
    return 0


cdef inline int add_waiter(Flights* self, Slot* slot, Call* call, Py_ssize_t row) except -1:
    """One more row that the slot's answer goes to; right after the first, order does not matter."""
    cdef int32_t i
    if self.pool_free < 0:
        grow_pool(self)
    i = self.pool_free
    self.pool_free = self.pool[i].next
    self.pool[i].call, self.pool[i].row, self.pool[i].next = call, <int32_t> row, slot.first.next
    slot.first.next = i
    return 0


cdef inline int32_t free_waiter(Flights* self, int32_t i) noexcept:
    """Give back a waiter of the pool; returns the one after it."""
    cdef int32_t after = self.pool[i].next
    self.pool[i].next = self.pool_free
    self.pool_free = i
    return after


cdef inline bint slot_is_wanted(Flights* self, const Slot* slot) noexcept:
    """Whether any of its waiters still wants the row."""
    cdef int32_t i = slot.first.next
    if is_wanted(slot.first.call):
        return True
    while i >= 0:
        if is_wanted(self.pool[i].call):
            return True
        i = self.pool[i].next
    return False
