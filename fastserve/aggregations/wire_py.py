"""Numbers of tile rows as bytes: LEB128 varints, and readers that never leave their bytes."""

from __future__ import annotations

from typing import Final

from fastserve.errors import CodecError

_WORD: Final = 1 << 64
MISFIT: Final = "the tiles do not fit the row"


def put_uint(out: bytearray, value: int) -> None:
    """0 … 2^64 - 1, seven bits a byte, the low ones first."""
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_int(out: bytearray, value: int) -> None:
    """-2^63 … 2^63 - 1: 0, -1, 1, -2, … as 0, 1, 2, 3, …"""
    put_uint(out, value << 1 if value >= 0 else ~value << 1 | 1)


class Reader:
    """Reads bytes from a position on.

    Raises:
        CodecError: each method, where the bytes end too soon or are no such number.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def unsigned(self, limit: int = _WORD) -> int:
        """A varint below `limit`."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                check(value < limit and (byte > 0 or not shift))  # or it could be shorter
                return value
        raise misfit()

    def signed(self) -> int:
        """A signed varint."""
        value = self.unsigned()
        return ~(value >> 1) if value & 1 else value >> 1

    def take(self, size: int) -> bytes:
        """The next bytes."""
        check(self.at + size <= len(self.data))
        self.at += size
        return self.data[self.at - size : self.at]


def check(fits: bool) -> None:
    """Raise unless the bytes are what the format says."""
    if not fits:
        raise misfit()


def misfit() -> CodecError:
    """The error for bytes that are not the tiles of their program; whoever knows the key says so."""
    return CodecError(MISFIT)
