"""What approximate functions keep of a value: a hash, or the number of a bucket. Fixed for ever: tiles hold them."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Final

_MASK: Final = (1 << 64) - 1
_P1: Final = 0x9E3779B185EBCA87
_P2: Final = 0xC2B2AE3D27D4EB4F
_P3: Final = 0x165667B19E3779F9
_P4: Final = 0x85EBCA77C2B2AE63
_P5: Final = 0x27D4EB2F165667C5


# ---- distinct values ---------------------------------------------------------------------------


def _turn(word: int, bits: int) -> int:
    word &= _MASK
    return (word << bits | word >> 64 - bits) & _MASK


def _round(lane: int, word: int) -> int:
    return _turn(lane + word * _P2, 31) * _P1 & _MASK


def xxh64(data: bytes) -> int:
    """XXH64 of seed 0, as https://github.com/Cyan4973/xxHash specifies it."""
    at, size = 0, len(data)
    if size >= 32:
        lanes = [(_P1 + _P2) & _MASK, _P2, 0, -_P1 & _MASK]
        while at + 32 <= size:
            lanes = [
                _round(lane, word)
                for lane, word in zip(lanes, struct.unpack_from("<4Q", data, at), strict=True)
            ]
            at += 32
        h = sum(_turn(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            h = (h ^ _round(0, lane)) * _P1 + _P4
    else:
        h = _P5
    h = (h + size) & _MASK
    while at + 8 <= size:
        h = _turn(h ^ _round(0, int.from_bytes(data[at : at + 8], "little")), 27) * _P1 + _P4
        at += 8
    if at + 4 <= size:
        h = _turn(h ^ int.from_bytes(data[at : at + 4], "little") * _P1, 23) * _P2 + _P3
        at += 4
    for byte in data[at:]:
        h = _turn(h ^ byte * _P5, 11) * _P1
    h &= _MASK
    h = (h ^ h >> 33) * _P2 & _MASK
    h = (h ^ h >> 29) * _P3 & _MASK
    return h ^ h >> 32


def distinct_estimate(hashes: tuple[int, ...], bound: int) -> int:
    """How many values these are the `bound` least hashes of: exact below the bound, an estimate from there."""
    if len(hashes) < bound:
        return len(hashes)
    return min(round(Fraction((bound - 1) << 64, max(hashes[-1], 1))), 2**63 - 1)


# ---- quantiles ---------------------------------------------------------------------------------


def bucket_of(value: float | int, bits: int) -> int:
    """Which bucket a number that is not NaN belongs to; they rise with the numbers.

    A bucket is the numbers of one sign, exponent and `bits` leading bits of the mantissa: 0, 1, … from zero upwards,
    -1, -2, … downwards. Both zeros are in 0.
    """
    number = float(value)
    magnitude = int(struct.unpack("<Q", struct.pack("<d", abs(number)))[0]) >> 52 - bits
    return magnitude if number >= 0 else -magnitude - 1


def bucket_middle(bucket: int, bits: int) -> float:
    """The number in the middle of a bucket, within 2^-(bits + 1) of each; of the two at zero, 0.0."""
    magnitude = bucket if bucket >= 0 else -bucket - 1
    if magnitude == 0:
        return 0.0
    if magnitude == 0x7FF << bits:
        return math.inf if bucket >= 0 else -math.inf
    middle: float = struct.unpack("<d", struct.pack("<Q", (magnitude << 52 - bits) + (1 << 51 - bits)))[0]
    return middle if bucket >= 0 else -middle


def quantile(counts: tuple[tuple[int, int], ...], q: float, bits: int) -> float | None:
    """The middle of the bucket that holds the value of rank ceil(q * n), the first being 1; None of no values.

    Args:
        counts: (bucket, how many), buckets rising.
    """
    n = sum(count for _, count in counts)
    rank = min(max(math.ceil(q * n), 1), n)
    for bucket, count in counts:
        rank -= count
        if rank <= 0:
            return bucket_middle(bucket, bits)
    return None
