# The best row so far, of a label or of an entity, and memory for many of them; header only.

from libc.stdint cimport uint64_t, uintptr_t
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


cdef inline void* room(size_t size) except NULL:
    """Zeroed, and of huge pages where there are: it is touched all over."""
    cdef char* made = <char*> calloc(size + 1, 1)
    cdef uintptr_t start, end
    if made == NULL:
        raise MemoryError
    start = (<uintptr_t> made + HUGE_PAGE - 1) & ~<uintptr_t> (HUGE_PAGE - 1)
    end = (<uintptr_t> made + size) & ~<uintptr_t> (HUGE_PAGE - 1)
    if start < end:
        madvise(<void*> start, end - start, MADV_HUGEPAGE)
    return made
