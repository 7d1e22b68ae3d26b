"""What writers tell servers: the keys they changed, one message a batch, so that no cache answers what was.

    message    u16 little-endian length, key, length, key, …        `ReadBatch.from_packed` reads it

A message goes out with the write itself, in the same script, and names only what really changed. A key of more
than 65,535 bytes is left out: no cache takes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MAX_KEY_BYTES: Final = 0xFFFF


def channel_of(db: int) -> bytes:
    """The channel of a Redis database: channels are the server's, not the database's."""
    return b"!fastserve:changes:%d" % db


def pack_keys(keys: Iterable[bytes]) -> bytes:
    """The message for these keys."""
    return b"".join(len(key).to_bytes(2, "little") + key for key in keys if len(key) <= MAX_KEY_BYTES)
