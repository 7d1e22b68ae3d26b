# HTTP/2 frames counted before libnghttp2 sees them (header-only). Twin: fastserve/http/frames.py.
#
# A frame is 9 bytes of head (length 24, type 8, flags 8, stream 32; RFC 9113 4.1) and `length`
# bytes. Frames that do no work are paid from `budget` (Limits.control_frame_budget).
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef enum:
    FRAME_HEAD = 9
    PREFACE = 24
    SLICE_FRAMES = 128      # scanned before the budget is looked at again,
    SLICE_BYTES = 16384     # ... or as many bytes: what a header block costs is known only after it was decoded
    CREDIT_REQUEST = 4      # tokens back per answered request
    CREDIT_SHIFT = 12       # ... and one per 4 KiB of body, either direction
    COST_SHIFT = 6          # a frame that does no work costs a token, and one more per 64 bytes
    RESET_COST = 2          # a reset, whoever sends it, throws a request away
    SMALL_DATA = 64         # bytes of body; a frame with fewer, and no end, is not worth its handling
    TYPE_DATA = 0
    TYPE_HEADERS = 1
    TYPE_RST_STREAM = 3
    TYPE_CONTINUATION = 9
    END_HEADERS = 0x4

ctypedef struct Frames:
    Py_ssize_t budget
    Py_ssize_t budget_max
    Py_ssize_t unclaimed        # DATA and header blocks that ended and no callback has found useful
    Py_ssize_t credit_bytes     # of body, not yet a token
    int preface_left
    uint8_t head[FRAME_HEAD]    # of the frame under way
    int head_size
    Py_ssize_t payload_left
    double head_since           # when the unfinished header block (at first: the preface) began; 0: none
    double now


cdef inline void frames_init(Frames *self, Py_ssize_t budget, double now) noexcept:
    self.budget = self.budget_max = budget
    self.unclaimed = 0
    self.preface_left = PREFACE
    self.head_since = self.now = now


cdef inline void frames_credit(Frames *self, Py_ssize_t n_bytes, int tokens) noexcept:
    self.credit_bytes += n_bytes
    self.budget += tokens + (self.credit_bytes >> CREDIT_SHIFT)
    self.credit_bytes &= (1 << CREDIT_SHIFT) - 1
    if self.budget > self.budget_max:
        self.budget = self.budget_max


cdef inline Py_ssize_t cost_of(Py_ssize_t length) noexcept:
    """Of a frame that does no work."""
    return 1 + (length >> COST_SHIFT)


cdef inline void frames_begin(Frames *self) noexcept:
    """The head is complete: charge the frame."""
    cdef uint8_t kind = self.head[3]
    self.head_size = 0
    self.payload_left = (self.head[0] << 16) | (self.head[1] << 8) | self.head[2]
    if kind == TYPE_HEADERS:
        self.head_since = self.now
        return
    if kind == TYPE_DATA:
        return
    if kind == TYPE_CONTINUATION:
        self.budget -= 1
        return
    self.head_since = 0
    self.budget -= RESET_COST if kind == TYPE_RST_STREAM else cost_of(self.payload_left)


cdef inline void frames_end(Frames *self) noexcept:
    """The payload is complete: DATA or a header block is now to be found useful, or charged."""
    cdef uint8_t kind = self.head[3]
    if kind == TYPE_DATA:
        self.unclaimed += 1
    elif self.head[4] & END_HEADERS and (kind == TYPE_HEADERS or kind == TYPE_CONTINUATION):
        self.head_since = 0
        self.unclaimed += 1


cdef inline void frames_settle(Frames *self) noexcept:
    """libnghttp2 has seen all that was scanned: what it found no use for is charged.

    These are frames of streams that are gone, which it drops without a word, and DATA of a few bytes. Below zero: a
    header block was refused before its end.
    """
    if self.unclaimed > 0:
        self.budget -= self.unclaimed
        self.unclaimed = 0


cdef inline Py_ssize_t frames_scan(Frames *self, const uint8_t *data, Py_ssize_t size) noexcept:
    """How many bytes to feed: to the end of a slice of frames, or to the budget's end."""
    cdef Py_ssize_t i = 0, n
    cdef int frames = 0
    if self.preface_left:
        i = min(<Py_ssize_t>self.preface_left, size)
        self.preface_left -= <int>i
        if self.preface_left == 0:
            self.head_since = 0
    while i < size:
        if self.payload_left:
            n = min(self.payload_left, size - i)
            i += n
            self.payload_left -= n
        else:
            if self.head_size == 0 and (frames == SLICE_FRAMES or i >= SLICE_BYTES):
                return i
            n = min(<Py_ssize_t>(FRAME_HEAD - self.head_size), size - i)
            memcpy(self.head + self.head_size, data + i, n)
            i += n
            self.head_size += <int>n
            if self.head_size < FRAME_HEAD:
                return i
            frames += 1
            frames_begin(self)
            if self.budget < 0:
                return i
        if self.payload_left == 0:
            frames_end(self)
    return i
