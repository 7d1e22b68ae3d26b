# The best row so far, of a label or of an entity, and memory for many of them; header only.

from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc

cdef extern from * nogil:
    """
    #include <sys/mman.h>
    #define FS_SIGN 0x8000000000000000ULL
    """
    const int MADV_HUGEPAGE
    int madvise(void* address, size_t size, int advice)
    const uint64_t SIGN "FS_SIGN"

cdef enum:
    HUGE_PAGE = 1 << 21
    PAGE = 1 << 12
    MALLOC = 32                # bytes or a few less that it puts before a mapping of its own


cdef struct Best:              # all 0: none yet
    uint64_t event             # times with the sign flipped: they compare as unsigned, and 0 is the first
    uint64_t created
    uint64_t place             # 1 + the row's place


cdef inline bint better(const Best* a, const Best* b) noexcept nogil:
    if a.event != b.event:
        return a.event > b.event
    if a.created != b.created:
        return a.created > b.created
    return a.place > b.place


cdef inline int64_t place_at(const Best* best, int64_t time, bint bounded, uint64_t ttl) noexcept nogil:
    """The place of a label's best row; -1 where there is none, or it is too old at that time."""
    if not best.place or (bounded and <uint64_t> time - (best.event ^ SIGN) >= ttl):
        return -1
    return <int64_t> best.place - 1


cdef inline void* room(size_t size) except NULL:
    """Zeroed, and of huge pages where there are: it is touched all over."""
    cdef uintptr_t start
    if size >= HUGE_PAGE:      # Linux aligns a mapping that is whole huge pages, malloc's own words included
        size = ((size + MALLOC - 1) // HUGE_PAGE + 1) * HUGE_PAGE - MALLOC
    cdef char* made = <char*> calloc(size + 1, 1)
    if made == NULL:
        raise MemoryError
    if size >= HUGE_PAGE - MALLOC:
        start = <uintptr_t> made & ~<uintptr_t> (PAGE - 1)
        madvise(<void*> start, <uintptr_t> made + size - start, MADV_HUGEPAGE)
    return made
