"""HTTP/2 frames counted before a session sees them. Twin of the scanner in _ext/h2.pyx.

A frame is 9 bytes of head (length 24, type 8, flags 8, stream 32; RFC 9113 4.1) and `length` bytes.
"""

from __future__ import annotations

FRAME_HEAD = 9
PREFACE_SIZE = 24
MAX_FRAME_SIZE = 16384
DATA, HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 0, 1, 3, 4, 9
MAX_SETTINGS = 6 * 32  # bytes of one frame: libnghttp2's bound; each may change the window of every stream
COST_SHIFT = 6  # a frame that does no work costs a token, and one more per 64 bytes: they take time to read
RESET_COST = 2  # a reset, whoever sends it, throws a request away
CREDIT_REQUEST = 4  # tokens back per answered request
SMALL_DATA = 64  # bytes of body; a frame with fewer, and no end, is not worth its handling
END_HEADERS = 0x4


class Budget:
    """Tokens for frames that do no work; see Limits.control_frame_budget."""

    __slots__ = ("_bytes", "_max", "left")

    def __init__(self, tokens: int) -> None:
        self.left = self._max = tokens
        self._bytes = 0

    def charge(self, tokens: int = 1) -> None:
        """Take tokens; `left` below zero ends the connection."""
        self.left -= tokens

    def credit(self, n_bytes: int, tokens: int = 0) -> None:
        """Useful work: one token per 4 KiB of body, and `tokens`; never above the maximum."""
        self._bytes += n_bytes
        self.left = min(self._max, self.left + tokens + (self._bytes >> 12))
        self._bytes &= 4095


class FrameScanner:
    """Follows frame boundaries over arbitrary chunks and charges every control frame.

    What HEADERS and DATA are worth only the session knows.

    Attributes:
        head_since: when the unfinished header block (at first: the preface) began; 0.0 for none.
        oversized: a frame is longer than SETTINGS_MAX_FRAME_SIZE allows.
    """

    def __init__(self, budget: Budget, now: float) -> None:
        self._budget = budget
        self._head = bytearray()
        self._left = 0  # of the payload
        self._ends_block = False  # the frame under way ends a header block
        self._preface = PREFACE_SIZE
        self.head_since = now
        self.oversized = False

    def advance(self, data: memoryview, now: float) -> int:
        """How many bytes of `data` belong to the frame under way; at least one."""
        if self._preface:
            size = min(self._preface, len(data))
            self._preface -= size
            if not self._preface:
                self.head_since = 0.0
            return size
        at = 0
        if not self._left:
            at = min(FRAME_HEAD - len(self._head), len(data))
            self._head += data[:at]
            if len(self._head) < FRAME_HEAD:
                return at
            self._begin(now)
        size = min(self._left, len(data) - at)
        self._left -= size
        if not self._left and self._ends_block:
            self.head_since = 0.0
        return at + size

    def _begin(self, now: float) -> None:
        length, kind, flags = int.from_bytes(self._head[:3]), self._head[3], self._head[4]
        self._ends_block = kind in (HEADERS, CONTINUATION) and bool(flags & END_HEADERS)
        self._head.clear()
        self._left = length
        self.oversized = length > MAX_FRAME_SIZE
        if kind == SETTINGS and length > MAX_SETTINGS:
            self._budget.left = 0
        if kind == HEADERS:
            self.head_since = now
            return
        if kind == DATA:
            return
        if kind == CONTINUATION:
            self._budget.charge()
            return
        self.head_since = 0.0
        self._budget.charge(RESET_COST if kind == RST_STREAM else 1 + (length >> COST_SHIFT))


def count_resets(output: bytes) -> int:
    """RST_STREAM frames in whole frames of output."""
    found = at = 0
    while at < len(output):
        found += output[at + 3] == RST_STREAM
        at += FRAME_HEAD + int.from_bytes(output[at : at + 3])
    return found
