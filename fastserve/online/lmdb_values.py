"""What stands in an LMDB file: keys and values as lmdb.py describes them, and a transaction over plain values.

Whoever keeps other things than rows beside the rows does so in the same form, so that sweeps and scans go by them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

import lmdb

from fastserve.errors import StoreError

MAX_KEY: Final = 511
KEPT: Final = MAX_KEY - 32
LENGTH: Final = struct.Struct("<I")
END: Final = struct.Struct(">Q")
_MAX_END: Final = 2**63
FOREVER: Final = b"\xff" * 8


def is_long(key: bytes) -> bool:
    """Whether a key does not stand there as it is."""
    return not 0 < len(key) < MAX_KEY


def stored_key(key: bytes) -> bytes:
    """How it stands there."""
    if not is_long(key):
        return key
    return key[:KEPT].ljust(KEPT, b"\0") + blake2b(key, digest_size=32).digest()


def row_value(key: bytes, row: bytes, end: bytes) -> bytes:
    """A row as it stands there, with the end of its life."""
    copy = LENGTH.pack(len(key)) + key if is_long(key) else b""
    return b"".join((end, copy, row))


def end_of_life(now_us: int, lifetime_us: int) -> bytes:
    """The end of a life as it stands there; 0 is for ever."""
    return END.pack(min(max(now_us + lifetime_us, 0), _MAX_END)) if lifetime_us else FOREVER


class Values:
    """Values, within one transaction; see LmdbStore.transact."""

    def __init__(self, txn: lmdb.Transaction[Any]) -> None:
        self._txn = txn

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, whatever its end of life is."""
        held = self._txn.get(stored_key(key))
        if held is None:
            return None
        return bytes(held[12 + len(key) :] if is_long(key) else held[8:])

    def put(self, key: bytes, value: bytes, end: bytes = FOREVER) -> None:
        """Set it, with the end of its life."""
        self._txn.put(stored_key(key), row_value(key, value, end))

    def delete(self, key: bytes) -> None:
        """Remove it, if it is there."""
        self._txn.delete(stored_key(key))

    def after(self, key: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys behind this one that begin with the prefix, and their values, rising; nothing is to change meanwhile.

        Raises:
            StoreError: the keys are too long to have an order.
        """
        if is_long(key):
            raise StoreError(f"a key of {len(key)} bytes is too long", where=f"LMDB, key {key[:80]!r}…")
        cursor = self._txn.cursor()
        found = cursor.set_range(key)
        if found and bytes(cursor.key()) == key:
            found = cursor.next()
        while found:
            name = bytes(cursor.key())
            if not name.startswith(prefix):
                return
            yield name, bytes(cursor.value()[8:])
            found = cursor.next()
