# Entries of the row cache, and the rings of bytes they lie in; header only.
#
#     ring    … | entry | entry | (pad) | entry | …          appended at head, removed at tail, nowhere else
#     entry   Entry, key, row, filled up to 8 bytes           never split: one that does not fit before the end goes to
#                                                             the beginning, after a pad
#
# head and tail only grow; their place is what remains of them by the capacity. A forgotten entry stays where it is, DEAD,
# until the tail comes by: so nothing is ever moved to close a gap, and sizes of any mix cannot fragment it.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum Mark:
    DEAD = 1
    PAD = 2
    NEGATIVE = 4    # there is no row
    MAIN = 8        # lies in the main ring


cdef struct Entry:
    uint64_t hash
    int64_t fetched_us
    uint32_t row_size
    uint16_t key_size
    uint8_t uses            # up to MAX_USES
    uint8_t marks           # PAD: hash is its size, no more of it is filled in


cdef struct Ring:
    char* data
    uint64_t capacity       # a multiple of 8
    uint64_t head
    uint64_t tail


cdef inline uint64_t entry_bytes(Py_ssize_t key_size, Py_ssize_t row_size) noexcept nogil:
    return (sizeof(Entry) + <uint64_t> key_size + <uint64_t> row_size + 7) & ~<uint64_t> 7


cdef inline const char* entry_key(const Entry* entry) noexcept nogil:
    return <const char*> (entry + 1)


cdef inline const char* entry_row(const Entry* entry) noexcept nogil:
    return <const char*> (entry + 1) + entry.key_size


cdef inline uint64_t gap(const Ring* ring, uint64_t size) noexcept nogil:
    """What is lost at the end of the ring if an entry of this size is appended now."""
    cdef uint64_t at = ring.head % ring.capacity
    return ring.capacity - at if at + size > ring.capacity else 0


cdef inline bint has_room(const Ring* ring, uint64_t size) noexcept nogil:
    return ring.capacity - (ring.head - ring.tail) >= size + gap(ring, size)


cdef inline Entry* append(Ring* ring, uint64_t size) noexcept nogil:
    """Room for an entry; has_room has said that there is."""
    cdef uint64_t lost = gap(ring, size)
    cdef Entry* pad
    cdef Entry* entry
    if lost >= sizeof(Entry):
        pad = <Entry*> (ring.data + ring.head % ring.capacity)
        pad.marks = PAD
        pad.hash = lost
    ring.head += lost
    entry = <Entry*> (ring.data + ring.head % ring.capacity)
    ring.head += size
    return entry


cdef inline Entry* oldest(Ring* ring) noexcept nogil:
    """The entry at the tail, pads passed over; NULL when the ring is empty."""
    cdef uint64_t at
    cdef Entry* entry
    while ring.tail < ring.head:
        at = ring.tail % ring.capacity
        if ring.capacity - at < sizeof(Entry):
            ring.tail += ring.capacity - at
            continue
        entry = <Entry*> (ring.data + at)
        if not entry.marks & PAD:
            return entry
        ring.tail += entry.hash
    return NULL
