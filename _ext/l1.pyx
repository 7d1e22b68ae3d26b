"""Rows read lately, by key, within a budget of bytes; fastserve/cache/l1_py.py is the twin.

    index    buckets of 8 slots, one cache line: 24 bits of the hash, 40 of the entry's place; 0: free. A
             key is in one of two buckets, so a look-up reads two lines at most, the first asked for ahead
    small    a tenth of the bytes: where a key goes that was not seen lately
    main     the rest: keys that were used again while in small, or that came back soon after they left it
    ghosts   hashes of keys that left small unused: what tells a key that came back

Eviction is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023). Its queues
are FIFO, so each is a ring of bytes (l1_ring.pxd). A hit writes one byte; nothing is allocated after the
beginning.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from l1_ring cimport (
    DEAD, MAIN, NEGATIVE, Entry, Ring, append, entry_bytes, entry_key, entry_row, has_room, oldest
)
from read_batch cimport (
    ABSENT, BORROWED, CACHED, CHANGED, STALE, UNKNOWN, Batch, Row, batch_of, key_at, key_size, set_row
)

cdef extern from * nogil:
    void __builtin_prefetch(const void* address)

cdef enum:
    WAYS = 8            # slots of a bucket: a cache line
    GROUP = 16          # keys that are looked up together
    MAX_USES = 3
    PROMOTE = 1         # uses in small that bring a key into main
    TURNS = 64          # entries of main that one insertion moves on, at most
    TAG_SHIFT = 40
    LARGEST = 32        # a budget's part that one entry may take: small holds three of them

cdef uint64_t MIX = 0x9E3779B1
cdef uint64_t PLACE = (<uint64_t> 1 << TAG_SHIFT) - 1


@cython.final
cdef class RowCache:
    """See the twin."""

    cdef Ring small, main
    cdef char* memory           # small's bytes, then main's
    cdef uint64_t* slots
    cdef uint64_t* ghosts       # (hash's upper half, evictions when it left); at hash & ghost_mask
    cdef uint64_t buckets, ghost_mask, ghost_life, left_small
    cdef char* from_small       # an entry, while it moves from small's tail to main's head
    cdef char* from_main        # the same, from main's tail to its head
    cdef Py_ssize_t entries, most_entries
    cdef uint64_t largest
    cdef readonly Py_ssize_t budget_bytes
    cdef int64_t lookups, hits, negative_hits, too_old, inserts, evictions, drops

    def __cinit__(self, Py_ssize_t budget_bytes):
        cdef uint64_t slots = WAYS, rings
        self.budget_bytes = budget_bytes
        if budget_bytes < 16_384:
            raise ValueError(f"a cache of {budget_bytes} bytes: 16384 is the least")
        while slots * 192 < <uint64_t> budget_bytes:
            slots *= 2
        self.buckets = slots // WAYS
        self.most_entries = slots * 4 // 5
        self.ghost_mask = slots // 2 - 1
        self.ghost_life = slots // 3
        self.largest = <uint64_t> budget_bytes // LARGEST & ~<uint64_t> 7
        rings = (budget_bytes - slots * 12 - 2 * self.largest) & ~<uint64_t> 7
        self.small.capacity = rings // 10 & ~<uint64_t> 7
        self.main.capacity = rings - self.small.capacity
        self.memory = <char*> malloc(rings)
        self.slots = <uint64_t*> calloc(slots, 8)
        self.ghosts = <uint64_t*> calloc(slots // 2, 8)
        self.from_small = <char*> malloc(2 * self.largest)
        if self.memory == NULL or self.slots == NULL or self.ghosts == NULL or self.from_small == NULL:
            raise MemoryError
        self.from_main = self.from_small + self.largest
        self.small.data = self.memory
        self.main.data = self.memory + self.small.capacity

    def __dealloc__(self):
        free(self.memory)
        free(self.slots)
        free(self.ghosts)
        free(self.from_small)

    def __len__(self):
        return self.entries

    @property
    def bytes_used(self):
        return (
            self.small.head - self.small.tail + self.main.head - self.main.tail + self.buckets * WAYS * 12
        )

    # ---- look-up -------------------------------------------------------------------------------

    def get_many(self, batch, Py_ssize_t start, Py_ssize_t stop, int64_t oldest_us, *, bint stale=False):
        """Fill in rows of a range; how many of it are still UNKNOWN."""
        cdef Batch* source = batch_of(batch)
        cdef Py_ssize_t at, missing = 0
        cdef uint8_t flags = CACHED | BORROWED | (STALE if stale else 0)
        if not 0 <= start <= stop <= source.n:
            raise IndexError(f"keys {start} to {stop} of {source.n}")
        for at in range(start, stop, GROUP):
            missing += self.look_up(source, at, min(at + GROUP, stop), oldest_us, flags)
        return missing

    def get_reads(self, batch, Py_ssize_t n, tuple ages_us, int64_t moment, int64_t since):
        """Fill in n rows for each of ages_us, which says how old they may be; how many are still UNKNOWN."""
        cdef Batch* source = batch_of(batch)
        cdef Py_ssize_t r, at, stop
        cdef int64_t age
        if source.n != len(ages_us) * n:
            raise IndexError(f"{source.n} keys, not {len(ages_us)} times {n}")
        for r in range(len(ages_us)):
            age = ages_us[r]
            stop = (r + 1) * n
            if age > 0:
                for at in range(r * n, stop, GROUP):
                    self.look_up(
                        source, at, min(at + GROUP, stop), max(moment - age, since), CACHED | BORROWED)
        return source.missing

    cdef Py_ssize_t look_up(
        self, Batch* batch, Py_ssize_t start, Py_ssize_t stop, int64_t oldest_us, uint8_t flags
    ) noexcept nogil:
        """In three passes, each of which asks for the memory of the next: buckets, entries, rows."""
        cdef Entry* found[GROUP]
        cdef Py_ssize_t i, missing = 0
        cdef Entry* entry
        for i in range(start, stop):
            __builtin_prefetch(self.bucket(batch.keys[i].hash))
        for i in range(start, stop):
            found[i - start] = NULL
            if batch.rows[i].state == UNKNOWN:
                self.lookups += 1
                found[i - start] = self.candidate(batch.keys[i].hash)
        for i in range(start, stop):
            if batch.rows[i].state != UNKNOWN:
                continue
            entry = found[i - start]
            if entry != NULL and not same_key(entry, batch, i):
                entry = self.find(batch, i)
            if entry == NULL:
                missing += 1
            elif entry.fetched_us < oldest_us:
                self.too_old += 1
                missing += 1
            else:
                self.hits += 1
                entry.uses += entry.uses < MAX_USES
                if entry.marks & NEGATIVE:
                    self.negative_hits += 1
                    set_row(batch, i, NULL, 0, flags, entry.fetched_us)
                else:
                    set_row(batch, i, entry_row(entry), entry.row_size, flags, entry.fetched_us)
        return missing

    cdef uint64_t* bucket(self, uint64_t hash) noexcept nogil:
        return &self.slots[(hash & (self.buckets - 1)) << 3]

    cdef uint64_t* other_bucket(self, uint64_t hash) noexcept nogil:
        return &self.slots[((hash >> 20 ^ hash >> 40) * MIX & (self.buckets - 1)) << 3]

    cdef Entry* at(self, uint64_t slot) noexcept nogil:
        return <Entry*> (self.memory + ((slot & PLACE) - 1) * 8)

    cdef Entry* candidate(self, uint64_t hash) noexcept nogil:
        """The first entry whose tag fits, most likely the one; its memory is asked for."""
        cdef uint64_t* bucket = self.bucket(hash)
        cdef uint64_t tag = hash >> TAG_SHIFT
        cdef int k
        for _ in range(2):
            for k in range(WAYS):
                if bucket[k] >> TAG_SHIFT == tag and bucket[k]:
                    __builtin_prefetch(self.at(bucket[k]))
                    return self.at(bucket[k])
            bucket = self.other_bucket(hash)
        return NULL

    cdef uint64_t* slot_of(self, const Batch* batch, Py_ssize_t i) noexcept nogil:
        """The slot of key i, or NULL."""
        cdef uint64_t hash = batch.keys[i].hash, tag = hash >> TAG_SHIFT
        cdef uint64_t* bucket = self.bucket(hash)
        cdef int k
        for _ in range(2):
            for k in range(WAYS):
                if bucket[k] >> TAG_SHIFT == tag and bucket[k] and same_key(self.at(bucket[k]), batch, i):
                    return &bucket[k]
            bucket = self.other_bucket(hash)
        return NULL

    cdef Entry* find(self, const Batch* batch, Py_ssize_t i) noexcept nogil:
        cdef uint64_t* slot = self.slot_of(batch, i)
        return NULL if slot == NULL else self.at(slot[0])

    # ---- insertion -----------------------------------------------------------------------------

    def put_many(self, batch, Py_ssize_t start, Py_ssize_t stop):
        """Take in rows of a range; how many."""
        cdef Batch* source = batch_of(batch)
        cdef Py_ssize_t i, taken = 0
        if not 0 <= start <= stop <= source.n:
            raise IndexError(f"keys {start} to {stop} of {source.n}")
        for i in range(start, stop):
            if source.rows[i].state != UNKNOWN and not source.rows[i].flags & (CACHED | CHANGED | STALE):
                taken += self.put_one(source, i)
        self.inserts += taken
        return taken

    cdef bint put_one(self, const Batch* batch, Py_ssize_t i) noexcept nogil:
        cdef const Row* row = &batch.rows[i]
        cdef uint64_t hash = batch.keys[i].hash, size = entry_bytes(key_size(batch, i), row.size)
        cdef uint64_t* slot = self.slot_of(batch, i)
        cdef Entry* held
        cdef uint8_t marks = NEGATIVE if row.state == ABSENT else 0
        cdef uint8_t uses = 0
        if slot != NULL:
            held = self.at(slot[0])
            if held.fetched_us > row.fetched_us:
                return False
            if held.row_size == row.size and held.marks & NEGATIVE == marks:
                held.fetched_us = row.fetched_us
                if row.size:
                    memcpy(<char*> entry_row(held), row.data, row.size)
                return True
            marks |= held.marks & MAIN
            uses = held.uses
            self.forget(slot)
        elif self.came_back(hash):
            marks |= MAIN
        if size > self.largest or key_size(batch, i) > 0xFFFF:
            return False
        return self.insert(batch, i, size, marks, uses)

    cdef bint insert(
        self, const Batch* batch, Py_ssize_t i, uint64_t size, uint8_t marks, uint8_t uses
    ) noexcept nogil:
        cdef const Row* row = &batch.rows[i]
        cdef Py_ssize_t key_bytes = key_size(batch, i)
        cdef Entry* entry
        while self.entries >= self.most_entries:
            self.evict_one()
        self.make_room(&self.main if marks & MAIN else &self.small, size)
        entry = append(&self.main if marks & MAIN else &self.small, size)
        entry.hash = batch.keys[i].hash
        entry.fetched_us = row.fetched_us
        entry.row_size = row.size
        entry.key_size = <uint16_t> key_bytes
        entry.uses, entry.marks = uses, marks
        memcpy(<char*> entry_key(entry), key_at(batch, i), key_bytes)
        if row.size:
            memcpy(<char*> entry_row(entry), row.data, row.size)
        self.link(entry)
        return True

    cdef void link(self, Entry* entry) noexcept nogil:
        """Into a free slot; where both buckets are full, in the place of the least used entry of one."""
        cdef uint64_t* bucket = self.bucket(entry.hash)
        cdef uint64_t* free_slot = NULL
        cdef uint64_t* worst = NULL
        cdef int k
        for _ in range(2):
            for k in range(WAYS):
                if not bucket[k]:
                    free_slot = &bucket[k]
                    break
                if worst == NULL or self.at(bucket[k]).uses < self.at(worst[0]).uses:
                    worst = &bucket[k]
            if free_slot != NULL:
                break
            bucket = self.other_bucket(entry.hash)
        if free_slot == NULL:
            self.evictions += 1
            self.forget(worst)
            free_slot = worst
        free_slot[0] = entry.hash >> TAG_SHIFT << TAG_SHIFT | <uint64_t> (
            ((<char*> entry) - self.memory) // 8 + 1)
        self.entries += 1

    cdef void forget(self, uint64_t* slot) noexcept nogil:
        self.at(slot[0]).marks |= DEAD
        slot[0] = 0
        self.entries -= 1

    cdef uint64_t* slot_at(self, const Entry* entry) noexcept nogil:
        """The slot of an entry that is not DEAD."""
        cdef uint64_t* bucket = self.bucket(entry.hash)
        cdef uint64_t place = <uint64_t> (((<const char*> entry) - self.memory) // 8 + 1)
        cdef int k
        for _ in range(2):
            for k in range(WAYS):
                if bucket[k] & PLACE == place:
                    return &bucket[k]
            bucket = self.other_bucket(entry.hash)
        return NULL

    # ---- eviction ------------------------------------------------------------------------------

    cdef void make_room(self, Ring* ring, uint64_t size) noexcept nogil:
        cdef int turns = TURNS
        while not has_room(ring, size):
            if ring == &self.small:
                self.pass_small(&turns)
            else:
                self.pass_main(&turns)

    cdef void evict_one(self) noexcept nogil:
        """The index is full, of entries that are small: let one go."""
        cdef int turns = TURNS
        cdef Py_ssize_t before = self.entries
        while self.entries == before:
            if self.small.head - self.small.tail > 0:
                self.pass_small(&turns)
            else:
                self.pass_main(&turns)

    cdef void pass_small(self, int* turns) noexcept nogil:
        """The oldest entry of small goes: into main if it was used or nothing has to leave for it."""
        cdef Entry* entry = oldest(&self.small)
        cdef uint64_t size
        if entry == NULL:
            return
        size = entry_bytes(entry.key_size, entry.row_size)
        if entry.marks & DEAD:
            self.small.tail += size
            return
        if entry.uses >= PROMOTE or has_room(&self.main, size):
            memcpy(self.from_small, entry, size)
            self.forget(self.slot_at(entry))
            self.small.tail += size
            while not has_room(&self.main, size):
                self.pass_main(turns)
            entry = append(&self.main, size)
            memcpy(entry, self.from_small, size)
            entry.uses = 0
            entry.marks = (entry.marks | MAIN) & <uint8_t> ~DEAD
            self.link(entry)
            return
        self.left_small += 1
        self.ghosts[entry.hash & self.ghost_mask] = (
            entry.hash >> 32 << 32 | <uint32_t> self.left_small)
        self.evictions += 1
        self.forget(self.slot_at(entry))
        self.small.tail += size

    cdef void pass_main(self, int* turns) noexcept nogil:
        """The oldest entry of main goes: to its head again if it was used, else for good."""
        cdef Entry* entry = oldest(&self.main)
        cdef uint64_t size
        if entry == NULL:
            return
        size = entry_bytes(entry.key_size, entry.row_size)
        if entry.marks & DEAD:
            self.main.tail += size
            return
        memcpy(self.from_main, entry, size)
        self.forget(self.slot_at(entry))
        self.main.tail += size
        if entry.uses and turns[0] > 0 and has_room(&self.main, size):
            turns[0] -= 1
            entry = append(&self.main, size)
            memcpy(entry, self.from_main, size)
            entry.uses -= 1
            entry.marks &= <uint8_t> ~DEAD
            self.link(entry)
            return
        self.evictions += 1

    cdef bint came_back(self, uint64_t hash) noexcept nogil:
        """Whether a key left small lately; asked once."""
        cdef uint64_t* ghost = &self.ghosts[hash & self.ghost_mask]
        if not ghost[0] or ghost[0] >> 32 != hash >> 32:
            return False
        if <uint32_t> self.left_small - <uint32_t> ghost[0] > self.ghost_life:
            return False
        ghost[0] = 0
        return True

    # ---- the rest ------------------------------------------------------------------------------

    def drop(self, batch):
        """Forget these keys; how many there were."""
        cdef const Batch* source = batch_of(batch)
        cdef Py_ssize_t i, dropped = 0
        cdef uint64_t* slot
        for i in range(source.n):
            slot = self.slot_of(source, i)
            if slot != NULL:
                self.forget(slot)
                dropped += 1
        self.drops += dropped
        return dropped

    def clear(self):
        """Forget everything."""
        memset(self.slots, 0, self.buckets * WAYS * 8)
        self.small.head = self.small.tail = self.main.head = self.main.tail = 0
        self.entries = 0

    def stats(self):
        """Counts since it was made, and what is there now."""
        return {
            "lookups": self.lookups,
            "hits": self.hits,
            "negative_hits": self.negative_hits,
            "too_old": self.too_old,
            "inserts": self.inserts,
            "evictions": self.evictions,
            "drops": self.drops,
            "entries": self.entries,
            "bytes_used": self.bytes_used,
        }


cdef inline bint same_key(const Entry* entry, const Batch* batch, Py_ssize_t i) noexcept nogil:
    return (
        entry.hash == batch.keys[i].hash
        and entry.key_size == key_size(batch, i)
        and memcmp(entry_key(entry), key_at(batch, i), entry.key_size) == 0
    )
