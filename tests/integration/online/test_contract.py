"""What every online store does, on the real thing."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest

from fastserve.errors import InvalidDataError, StoreError, StoreUnavailableError
from fastserve.online import OnlineStore
from tests.integration.online.rows import INT64_MAX, INT64_MIN, Opener, get, row

HOUR_US = 3_600_000_000
Handles = Callable[[], OnlineStore]


async def gone(store: OnlineStore, key: bytes) -> None:
    """Wait until the store has dropped a row whose life is over; the test's time-out ends it."""
    while await get(store, [key]) != [None]:
        await asyncio.sleep(0.001)


async def test_round_trip_in_the_order_asked_with_repeats_and_misses(store: OnlineStore) -> None:
    assert await store.put_many([b"7:1", b"7:2"], [row(1, 1, b"one"), row(1, 1, b"two")]) == 2
    found = await get(store, [b"7:2", b"7:9", b"7:1", b"7:2"])
    assert found == [row(1, 1, b"two"), None, row(1, 1, b"one"), row(1, 1, b"two")]


async def test_a_fresh_answer_has_what_was_acknowledged_before(opened: Handles) -> None:
    reader, writer = opened(), opened()
    for value in range(50):
        shared = reader.get_many([b"7:1"])  # on its way, or still to be sent
        await asyncio.sleep(0)
        await writer.put_many([b"7:1"], [row(value)])
        fresh = reader.get_fresh([b"7:1", b"7:2"])
        assert (await fresh if isinstance(fresh, asyncio.Future) else fresh) == [row(value), None]
        if isinstance(shared, asyncio.Future):
            await shared


async def test_another_handle_sees_it(opened: Handles) -> None:
    first, second = opened(), opened()
    assert await get(second, [b"7:1"]) == [None]
    await first.put_many([b"7:1"], [row(1)])
    assert await get(second, [b"7:1"]) == [row(1)]
    await first.close()
    assert await get(second, [b"7:1"]) == [row(1)]
    assert await get(opened(), [b"7:1"]) == [row(1)]


STAMPS = [
    (INT64_MIN, INT64_MIN), (INT64_MIN, INT64_MAX), (-(2**32) - 1, 5), (-(2**32), -5), (-1, -1), (-1, 0),
    (0, -1), (0, 0), (0, 1), (1, -7), (2**31, 2**32), (2**31, 2**32 + 1), (2**53, 0), (2**53 + 1, 0),
    (2**53 + 1, 1), (INT64_MAX, INT64_MIN), (INT64_MAX, INT64_MAX - 1), (INT64_MAX, INT64_MAX),
]  # fmt: skip


async def test_newest_wins_whatever_the_order_of_arrival(store: OnlineStore) -> None:
    """Each pair of stamps on a key of its own, in both orders, in separate batches."""
    pairs = list(itertools.permutations(range(len(STAMPS)), 2))
    keys = [b"7:%d-%d" % pair for pair in pairs]
    first = [row(*STAMPS[a], b"first") for a, _ in pairs]
    second = [row(*STAMPS[b], b"second") for _, b in pairs]
    assert await store.put_many(keys, first) == len(pairs)
    newer = [STAMPS[b] > STAMPS[a] for a, b in pairs]
    assert await store.put_many(keys, second) == sum(newer)
    wanted = [two if new else one for one, two, new in zip(first, second, newer, strict=True)]
    assert await get(store, keys) == wanted


async def test_an_equal_row_does_not_replace(store: OnlineStore) -> None:
    await store.put_many([b"7:1"], [row(5, 5, b"first")])
    assert await store.put_many([b"7:1"], [row(5, 5, b"second")]) == 0
    assert await get(store, [b"7:1"]) == [row(5, 5, b"first")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_newest_wins_within_a_batch(store: OnlineStore, order: tuple[int, ...]) -> None:
    rows = [row(1, 0), row(1, 1), row(2, -9)]
    keys = [b"7:%r" % (order,)] * 3
    assert await store.put_many(keys, [rows[i] for i in order]) == 1
    assert await get(store, keys[:1]) == [row(2, -9)]


async def test_random_writes_end_as_the_maximum(store: OnlineStore) -> None:
    rng = random.Random(7)
    best: dict[bytes, tuple[int, int]] = {}
    for _ in range(30):
        batch = [(b"7:%d" % rng.randrange(40), (rng.randrange(-9, 9), rng.randrange(-9, 9)))
                 for _ in range(rng.randrange(60))]  # fmt: skip
        await store.put_many([key for key, _ in batch], [row(*stamps) for _, stamps in batch])
        for key, stamps in batch:
            best[key] = max(best.get(key, stamps), stamps)
    assert await get(store, list(best)) == [row(*stamps) for stamps in best.values()]


async def test_concurrent_writers_in_one_process(opened: Handles) -> None:
    stores = [opened() for _ in range(4)]
    keys = [b"7:%d" % i for i in range(150)]
    stamps = random.Random(3).sample(range(1000), 40)
    counts = await asyncio.gather(
        *(stores[i % 4].put_many(keys, [row(ts)] * len(keys)) for i, ts in enumerate(stamps))
    )
    assert await get(stores[0], keys) == [row(max(stamps))] * len(keys)
    assert sum(counts) >= len(keys)


async def test_lifetimes(store: OnlineStore) -> None:
    keys = [b"7:never", b"7:none", b"7:long", b"7:short", b"7:over"]
    assert await store.put_many(keys, [row(1)] * 5, [0, None, HOUR_US, 1, -HOUR_US]) == 5
    await gone(store, b"7:short")
    await gone(store, b"7:over")
    assert await get(store, keys) == [row(1), row(1), row(1), None, None]


async def test_lifetimes_of_an_array_and_of_extremes(store: OnlineStore) -> None:
    lifetimes = np.array([INT64_MAX, INT64_MIN, 0], np.int64)
    await store.put_many([b"7:1", b"7:2", b"7:3"], [row(1)] * 3, lifetimes)
    await gone(store, b"7:2")
    assert await get(store, [b"7:1", b"7:3"]) == [row(1), row(1)]


async def test_a_dead_row_gives_way_to_an_older_one(store: OnlineStore) -> None:
    await store.put_many([b"7:1"], [row(9)], [1])
    await gone(store, b"7:1")
    assert await store.put_many([b"7:1"], [row(3)]) == 1
    assert await get(store, [b"7:1"]) == [row(3)]


async def test_a_new_row_brings_its_own_lifetime(store: OnlineStore) -> None:
    await store.put_many([b"7:1"], [row(1)])
    await store.put_many([b"7:1"], [row(2)], [1])
    await gone(store, b"7:1")


async def test_sweep_drops_the_dead_only(store: OnlineStore, url: str) -> None:
    keys = [b"7:%d" % i for i in range(2_500)]
    await store.put_many(keys, [row(1)] * len(keys), [1 if i % 2 else 0 for i in range(len(keys))])
    for key in (keys[1], keys[-1]):
        await gone(store, key)
    dropped = await store.sweep()
    assert dropped == (0 if "redis" in url or url.startswith("unix") else 1_250)
    assert await store.sweep() == 0
    assert await get(store, keys) == [None if i % 2 else row(1) for i in range(len(keys))]


async def test_delete(store: OnlineStore) -> None:
    await store.put_many([b"7:1", b"7:2", b"7:3"], [row(9)] * 3)
    assert await store.delete_many([b"7:1", b"7:3", b"7:4"]) == 2
    assert await get(store, [b"7:1", b"7:2", b"7:3"]) == [None, row(9), None]
    assert await store.put_many([b"7:1"], [row(1)]) == 1, "a deleted row is forgotten, order and all"


async def test_scan_by_prefix(store: OnlineStore) -> None:
    """Prefixes are bytes, not patterns, and rows whose life is over are not there."""
    keys = [b"7:*a", b"7:b", b"7:[a]", b"70:a", b"7", b"8:a", b"\xff\xfe", b"7:" + b"x" * 600]
    await store.put_many(keys, [row(1)] * len(keys))
    await store.put_many([b"7:dead"], [row(1)], [1])
    await gone(store, b"7:dead")
    for prefix in (b"", b"7:", b"7:*", b"7:[", b"7", b"\xff", b"nothing", b"7:" + b"x" * 550):
        found = [key async for key in store.scan(prefix)]
        assert sorted(found) == sorted(k for k in keys if k.startswith(prefix)), prefix


async def test_scan_of_many(store: OnlineStore) -> None:
    keys = {b"7:%d" % i for i in range(3_456)}
    await store.put_many(sorted(keys), [row(1)] * len(keys))
    assert {key async for key in store.scan(b"7:")} == keys


async def test_empty_batches(store: OnlineStore) -> None:
    assert await get(store, []) == []
    assert await store.put_many([], []) == 0
    assert await store.put_many([], [], np.zeros(0, np.int64)) == 0
    assert await store.delete_many([]) == 0


async def test_ten_thousand_keys(store: OnlineStore) -> None:
    keys = [b"7:%d" % i for i in range(10_000)]
    rows = [row(i, -i, b"x" * (i % 300)) for i in range(10_000)]
    assert await store.put_many(keys, rows) == 10_000
    order = random.Random(1).sample(range(10_000), 10_000)
    assert await get(store, [keys[i] for i in order]) == [rows[i] for i in order]
    assert await store.delete_many(keys) == 10_000


ODD_KEYS = [b"", b"\0", b"\0\0", b"a b\r\n", b"*", b"\xff" * 9, b"$5\r\nx", "é".encode()] + [
    bytes([c]) * n for n in (510, 511, 512, 513, 5_000) for c in (0, 97, 255)
]


async def test_odd_and_long_keys(store: OnlineStore) -> None:
    rows = [row(1, i) for i in range(len(ODD_KEYS))]
    assert await store.put_many(ODD_KEYS, rows) == len(rows)
    assert await get(store, ODD_KEYS) == rows
    assert await store.put_many(ODD_KEYS, [row(1, -1)] * len(rows)) == 0
    assert sorted([key async for key in store.scan()]) == sorted(ODD_KEYS)
    assert await store.delete_many(ODD_KEYS[::2]) == len(ODD_KEYS[::2])
    assert await get(store, ODD_KEYS) == [r if i % 2 else None for i, r in enumerate(rows)]


async def test_rows_of_up_to_a_mebibyte(store: OnlineStore) -> None:
    """Also grows the LMDB map, which starts at 1 MiB."""
    sizes = [0, 1, 7, 8, 4_071, 4_072, 4_073, 65_536, 2**20]
    rows = [row(1, 1, random.Random(size).randbytes(size)) for size in sizes]
    keys = [b"7:%d" % size for size in sizes]
    assert await store.put_many(keys, rows) == len(keys)
    assert await get(store, keys) == rows
    assert await store.put_many(keys, [row(2, 2, r) for r in rows]) == len(keys)
    assert await get(store, keys[-1:]) == [row(2, 2, rows[-1])]


async def test_what_is_no_row_is_refused_and_nothing_written(store: OnlineStore) -> None:
    with pytest.raises(InvalidDataError, match="at least 24 bytes"):
        await store.put_many([b"7:1", b"7:2"], [row(1), row(1)[:-1]])
    with pytest.raises(InvalidDataError, match="pair up"):
        await store.put_many([b"7:1"], [])
    with pytest.raises(InvalidDataError, match="pair up"):
        await store.put_many([b"7:1"], [row(1)], [1, 2])
    assert await get(store, [b"7:1", b"7:2"]) == [None, None]


async def test_close_twice_and_use_after(store: OnlineStore) -> None:
    await store.put_many([b"7:1"], [row(1)])
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await get(store, [b"7:1"])
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.put_many([b"7:1"], [row(2)])
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.delete_many([b"7:1"])
    with pytest.raises(StoreUnavailableError, match="closed"):
        await anext(aiter(store.scan()))


async def test_read_only(store: OnlineStore, url: str, open_at: Opener) -> None:
    await store.put_many([b"7:1"], [row(1)])
    reader = open_at(url, read_only=True)
    assert await get(reader, [b"7:1"]) == [row(1)]
    assert [key async for key in reader.scan()] == [b"7:1"]
    for write in (
        reader.put_many([b"7:1"], [row(2)]),
        reader.delete_many([b"7:1"]),
        reader.sweep(),
    ):
        with pytest.raises(StoreError, match="read-only"):
            await write
