"""Batches filled, owned and packed, and the row cache: put, get, evict, drop."""

from fastserve._native.batch import ReadBatch
from fastserve._native.l1 import RowCache
from fastserve.errors import CodecError
from tests.isolated.meter import run

NATIVES = ("batch", "l1")
CACHE = RowCache(1 << 18)
PACKED = b"".join(len(key).to_bytes(2, "little") + key for key in (b"", b"7:1", b"7:22"))
ROWS = [bytes(40), None, bytes(9_000), bytes(100)]


def once(i: int) -> None:
    keys = [b"7:%d" % (i * 4 % 20_000 + k) for k in range(4)]
    batch = ReadBatch(keys)
    if CACHE.get_many(batch, 0, 4, i - 30_000, stale=i % 2 == 0):
        batch.fill(ROWS[4 - batch.missing :], i)
        batch.own()
        CACHE.put_many(batch, 0, 4)
    assert len(batch.rows()) == 4 and batch.missing == 0
    if i % 3 == 0:
        CACHE.drop(batch)
    if i % 16 == 0:
        RowCache(1 << 14).put_many(batch, 0, 4)
    try:
        CACHE.drop(ReadBatch.from_packed(PACKED if i % 2 else PACKED[:-1]))
        assert i % 2
    except CodecError:
        assert i % 2 == 0


if __name__ == "__main__":
    run(once)
