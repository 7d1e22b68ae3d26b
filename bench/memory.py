"""Bytes of Redis's memory an entity takes, 50 float32: one packed row of ours, beside the hash that Feast keeps.

Feast's layout (0.67, Redis online store, entity keys serialized by version 3) is made here byte by byte, without Feast:

    key     u32 1 | u32 STRING | u32 length, join key | u32 INT64 | u32 8, int64 | project      integers little-endian
    hash    murmur3-32 of `view:feature`, 4 bytes -> a protobuf Value, 5 bytes: tag of float_val, the float
            `_ts:view` -> a protobuf Timestamp

Memory does not vary: each layout is loaded once, checked, and `used_memory` of the empty server taken off.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import hiredis
import numpy as np
import redis as redis_py

from bench.bulk_load import writer
from bench.processes import SERVER_CORE, pinned
from bench.record import Table, Target, save
from bench.scale import scaled
from bench.world import NAMES, redis, values

ENTITIES: Final = scaled(250_000, 3_000)
VIEW: Final = "load"
PROJECT: Final = b"bench"
EVENT_S: Final = 1_750_000_000
TTL_S: Final = 30 * 86_400
STRING, INT64, FLOAT_TAG = 2, 4, 0x35
M32: Final = 0xFFFFFFFF


def main() -> int:
    """Measure and write bench/results/memory.json."""
    table = Table("an entity of 50 float32", {"bytes": "", "over_feast": "x"})
    found = {}
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as folder, redis(folder) as (port, _):
        for expires in (False, True):
            found[False, expires] = feast(port, Path(folder), expires=expires)
            found[True, expires] = ours(port, "expiring" if expires else "fresh")
    for expires, more in ((False, ""), (True, ", expiring")):
        ratio = found[True, expires] / found[False, expires]
        table.add(f"fastserve{more}", bytes=found[True, expires], over_feast=ratio)
        table.add(f"Feast's layout{more}", bytes=found[False, expires])
    ratio = found[True, False] / found[False, False]
    aim = Target("Redis bytes an entity over Feast's layout", ratio, at_most=0.42, reach=0.38)
    notes = [
        f"{ENTITIES:,} entities with an int64 key; `used_memory` less the empty server's, keys and tables included.",
        "A row of ours is 231 bytes, in an allocation of 256; a ttl is an entry in another table of Redis.",
    ]
    save("memory", "Memory an entity takes in Redis", [table], targets=[aim], notes=notes)
    return 0


def ours(port: int, kind: str) -> float:
    """Bytes an entity takes as the materializer writes it, checked."""
    with redis_py.Redis(port=port) as client:
        empty = emptied(client)
        writer("memory", port, kind, entities=ENTITIES)
        writer("check", port, kind, entities=ENTITIES)
        assert client.dbsize() == ENTITIES
        return (used(client) - empty) / ENTITIES


def feast(port: int, folder: Path, *, expires: bool) -> float:
    """Bytes an entity takes as Feast writes it, checked."""
    path = folder / "feast.resp"
    path.write_bytes(b"".join(commands(expires=expires)))
    with redis_py.Redis(port=port) as client:
        empty = emptied(client)
        command = pinned(SERVER_CORE, ["redis-cli", "-p", str(port), "--pipe"])
        with path.open("rb") as sent:
            subprocess.run(command, stdin=sent, capture_output=True, check=True)
        assert client.dbsize() == ENTITIES
        for entity in np.random.default_rng(1).integers(0, ENTITIES, 100).tolist():
            held: Any = client.hgetall(key_of(entity))
            read = [struct.unpack("<xf", held[field_of(name)])[0] for name in NAMES]
            assert len(held) == len(NAMES) + 1 and read == values([entity])[0].tolist()
        return (used(client) - empty) / ENTITIES


def emptied(client: redis_py.Redis) -> int:
    """Memory of the empty server."""
    client.flushall()
    client.memory_purge()
    return used(client)


def used(client: redis_py.Redis) -> int:
    """Memory that the server's allocator has handed out."""
    info: Any = client.info("memory")
    return int(info["used_memory"])


# ---- Feast's layout ------------------------------------------------------------------------------


def commands(*, expires: bool) -> Iterator[bytes]:
    """HSET, and EXPIRE, of every entity."""
    fields = [field_of(name) for name in NAMES]
    stamp = b"\x08" + varint(EVENT_S)
    for start in range(0, ENTITIES, 10_000):
        ids = np.arange(start, min(start + 10_000, ENTITIES))
        for entity, row in zip(ids.tolist(), values(ids), strict=True):
            key = key_of(entity)
            command: list[Any] = ["HSET", key, f"_ts:{VIEW}", stamp]
            for field, value in zip(fields, row.tolist(), strict=True):
                command += (field, struct.pack("<Bf", FLOAT_TAG, value))
            yield hiredis.pack_command(tuple(command))
            if expires:
                expire: tuple[Any, ...] = ("EXPIRE", key, TTL_S)
                yield hiredis.pack_command(expire)


def key_of(entity: int) -> bytes:
    """The key of a user."""
    name = b"user_id"
    join_keys = struct.pack("<III", 1, STRING, len(name)) + name
    return join_keys + struct.pack("<IIq", INT64, 8, entity) + PROJECT


def field_of(feature: str) -> bytes:
    """The hash's field of a feature."""
    return murmur3(f"{VIEW}:{feature}".encode()).to_bytes(4, "little")


def varint(number: int) -> bytes:
    """As protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def murmur3(data: bytes) -> int:
    """MurmurHash3, x86, 32 bits, seed 0."""
    hashed, whole = 0, len(data) // 4 * 4
    for at in range(0, whole, 4):
        hashed ^= mixed(int.from_bytes(data[at : at + 4], "little"))
        hashed = (rotated(hashed, 13) * 5 + 0xE6546B64) & M32
    if whole < len(data):
        hashed ^= mixed(int.from_bytes(data[whole:], "little"))
    hashed ^= len(data)
    hashed = (hashed ^ hashed >> 16) * 0x85EBCA6B & M32
    hashed = (hashed ^ hashed >> 13) * 0xC2B2AE35 & M32
    return hashed ^ hashed >> 16


def mixed(word: int) -> int:
    """A word before it goes into the hash."""
    return rotated(word * 0xCC9E2D51 & M32, 15) * 0x1B873593 & M32


def rotated(word: int, by: int) -> int:
    """A word of 32 bits, turned left."""
    return (word << by | word >> (32 - by)) & M32


if __name__ == "__main__":
    sys.exit(main())
