"""Feeds in LMDB, beside the rows: for one machine, without a server. One write transaction is all that entries change.

    <feed>:shards          how many shards, text
    <feed>:log:<s>:<n>     entry n, 8 bytes big-endian: milliseconds and a number within, as its id says
    <feed>:end:<s>         n of the last entry, and how many there ever were
    <feed>:state:<s>       the shard's state
    <feed>:corrected:<s>   how often runs have put rows of the shard right
    <feed>:ids:<s>:<b>:<n> 8 bytes little-endian for each id of bucket b that came with the entries up to n
    <feed>:archived:<s>    the last entry that the offline store has
    <feed>:dead:<n>        dead letters, the last 10,000
    !stream:<project>:workers    worker -> when it was last heard of, milliseconds, as JSON

Writers of all processes take turns, so work is done within the transaction, on rows that nobody changes meanwhile.
Nobody is told of an entry: who waits for one looks every 20 ms.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from fastserve.batch import ReadBatch
from fastserve.hashes.mixing import Words
from fastserve.online.lmdb import open_lmdb
from fastserve.online.lmdb_values import Values, end_of_life
from fastserve.streaming.base import DEAD_LETTERS, Changes, Correction, Place, Work, check_held
from fastserve.streaming.entries import Entry
from fastserve.streaming.feeds import Feed, workers_key
from fastserve.streaming.places import earliest, number_of, place_at, place_of, stamped_us
from fastserve.streaming.seen import packed_words, unpacked_words
from fastserve.streaming.state import START
from fastserve.timeutil import now_us

_TRIM: Final = 10_000
_LOOK_S: Final = 0.02
_NUMBER: Final = struct.Struct(">Q")
_END: Final = struct.Struct(">QQ")
_SIZE: Final = struct.Struct("<I")


class LmdbFeeds:
    """A FeedStore; see the module's docstring.

    Args:
        url: as of the online store.

    Raises:
        ConfigError: for a malformed URL.
        StoreError: the file cannot be opened.
    """

    lanes = 1  # writers take turns

    def __init__(self, url: str) -> None:
        self._store = open_lmdb(url, False)

    def shard_count(self, feed: Feed, wanted: int) -> int:
        """See FeedStore."""
        key = feed.key("shards")
        (held,) = self.values([key])
        if held is not None:
            return int(held)

        def work(values: Values) -> int:
            count = int(values.get(key) or wanted)
            values.put(key, str(count).encode())
            return count

        return self._store.transact(work, write=True)

    def append(self, entries: Sequence[tuple[Feed, int, Mapping[bytes, bytes]]]) -> None:
        """See FeedStore; here all of them are there, or none."""

        def work(values: Values) -> None:
            for feed, shard, fields in entries:
                last, count = _end(values, feed, shard)
                number = max(number_of(place_at(now_us())), last + 1)
                values.put(_log_key(feed, shard, number), _packed(fields))
                values.put(feed.key("end", shard), _END.pack(number, count + 1))

        self._store.transact(work, write=True)

    def entries(self, feed: Feed, shard: int, after: str, count: int) -> list[Entry]:
        """See FeedStore."""
        prefix = feed.key("log", shard) + b":"

        def work(values: Values) -> list[Entry]:
            found = values.after(_log_key(feed, shard, number_of(after)), prefix)
            return [_entry(key, value) for key, value in islice(found, count)]

        return self._store.transact(work, write=False)

    def wait(self, places: Mapping[Place, str], seconds: float) -> None:
        """See FeedStore."""
        until = time.monotonic() + seconds
        behind = {(feed.key("end", shard)): number_of(after) for (feed, shard), after in places.items()}
        while time.monotonic() < until:
            ends = self.values(list(behind))
            if any(end and _END.unpack(end)[0] > n for end, n in zip(ends, behind.values(), strict=True)):
                return
            time.sleep(_LOOK_S)

    def states(self, places: Sequence[Place]) -> list[bytes | None]:
        """See FeedStore."""
        return self.values([feed.key("state", shard) for feed, shard in places])

    def swap(self, feed: Feed, shard: int, held: bytes | None, state: bytes) -> bool:
        """See FeedStore."""
        key = feed.key("state", shard)
        return self.exchange({key: held}, {key: state})

    def exchange(self, held: Mapping[bytes, bytes | None], new: Mapping[bytes, bytes]) -> bool:
        """See FeedStore."""

        def work(values: Values) -> bool:
            if any(values.get(key) != value for key, value in held.items()):
                return False
            for key, value in new.items():
                values.put(key, value)
            return True

        return self._store.transact(work, write=True)

    def ids(self, feed: Feed, shard: int, buckets: Sequence[int]) -> dict[int, Words]:
        """See FeedStore."""

        def work(values: Values) -> dict[int, Words]:
            parts = {bucket: [value for _, value in _ids(values, feed, shard, bucket)] for bucket in buckets}
            return {bucket: unpacked_words(b"".join(some)) for bucket, some in parts.items() if some}

        return self._store.transact(work, write=False)

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See FeedStore."""
        return self._store.transact(lambda values: [values.get(key) for key in keys], write=False)

    def apply(
        self,
        feed: Feed,
        shard: int,
        held: bytes,
        guards: Mapping[bytes, bytes | None],
        keys: ReadBatch,
        work: Work,
    ) -> Changes:
        """See FeedStore."""

        def apply(values: Values) -> Changes:
            found = [values.get(key) for key in (feed.key("state", shard), *guards)]
            check_held(feed, shard, [held, *guards.values()], found)
            keys.fill([values.get(key) for key in keys.missing_keys()], 0)
            changes = work()
            _write(values, feed, shard, changes)
            return changes

        return self._store.transact(apply, write=True)

    def correct(self, feed: Feed, shard: int, rows: Sequence[Correction]) -> list[bool]:
        """See FeedStore: no worker is in the middle of its transaction while this one is open."""

        def work(values: Values) -> list[bool]:
            done = [values.get(row.key) == row.held for row in rows]
            now = now_us()
            for row, may in zip(rows, done, strict=True):
                if may:
                    values.put(row.key, row.row, end_of_life(now, max(row.lifetime_us, 1)))
            if any(done):
                key = feed.key("corrected", shard)
                values.put(key, b"%d" % (int(values.get(key) or 0) + 1))
            return done

        return self._store.transact(work, write=True)

    def beat(self, project: str, worker: str, alive_s: float) -> list[str]:
        """See FeedStore; by the machine's clock."""
        key, now = workers_key(project), now_us() // 1_000

        def work(values: Values) -> list[str]:
            held = {**json.loads(values.get(key) or b"{}"), worker: now}
            alive = {name: at for name, at in held.items() if now - at < alive_s * 1_000}
            values.put(key, json.dumps(alive).encode())
            return sorted(alive)

        return self._store.transact(work, write=True)

    def leave(self, project: str, worker: str) -> None:
        """See FeedStore."""
        key = workers_key(project)

        def work(values: Values) -> None:
            held = json.loads(values.get(key) or b"{}")
            values.put(key, json.dumps({name: at for name, at in held.items() if name != worker}).encode())

        self._store.transact(work, write=True)

    def trim(self, feed: Feed, shard: int, before: str, older_than_us: int, *, archived: bool) -> int:
        """See FeedStore; at most 10,000 a call."""

        def work(values: Values) -> int:
            first = earliest(before, place_at(older_than_us))
            if archived:
                place = values.get(feed.key("archived", shard)) or START.encode()
                first = earliest(first, place.decode())
            end = number_of(first)
            found = values.after(_log_key(feed, shard, 0), feed.key("log", shard) + b":")
            gone = [key for key, _ in islice(found, _TRIM) if _NUMBER.unpack(key[-8:])[0] < end]
            for key in gone:
                values.delete(key)
            return len(gone)

        return self._store.transact(work, write=True)

    def note_archived(self, feed: Feed, places: Mapping[int, str]) -> None:
        """See FeedStore."""

        def work(values: Values) -> None:
            for shard, place in places.items():
                values.put(feed.key("archived", shard), place.encode())

        self._store.transact(work, write=True)

    def last(self, feed: Feed, shard: int) -> str:
        """See FeedStore."""
        return place_of(self._store.transact(lambda values: _end(values, feed, shard)[0], write=False))

    def added(self, feed: Feed, shard: int) -> int | None:
        """See FeedStore."""
        return self._store.transact(lambda values: _end(values, feed, shard)[1], write=False)

    def close(self) -> None:
        """See FeedStore."""
        self._store.release()


def _write(values: Values, feed: Feed, shard: int, changes: Changes) -> None:
    values.put(feed.key("state", shard), changes.state)
    for key, row in sorted(
        pair for batch in changes.rows for pair in zip(batch.keys(), batch.rows(), strict=True)
    ):
        assert row is not None
        values.put(key, row)
    last, _ = _end(values, feed, shard)
    for bucket, words in changes.ids.items():
        name = _ids_prefix(feed, shard, bucket)
        number = max((_NUMBER.unpack(key[-8:])[0] for key, _ in _ids(values, feed, shard, bucket)), default=0)
        values.put(name + _NUMBER.pack(max(last, number + 1)), packed_words(words))
    for bucket in changes.let_go:
        for key in [key for key, _ in _ids(values, feed, shard, bucket)]:
            values.delete(key)
    count = int(values.get(feed.key("letters")) or 0)
    for letter in changes.dead:
        body = {"shard": shard, "entry": letter.entry, "row": letter.row, "reason": letter.reason,
                "body": letter.body.decode("utf-8", "replace")}  # fmt: skip
        values.put(feed.key("dead") + b":" + _NUMBER.pack(count), json.dumps(body).encode())
        if count >= DEAD_LETTERS:
            values.delete(feed.key("dead") + b":" + _NUMBER.pack(count - DEAD_LETTERS))
        count += 1
    if changes.dead:
        values.put(feed.key("letters"), str(count).encode())


def _ids(values: Values, feed: Feed, shard: int, bucket: int) -> Iterator[tuple[bytes, bytes]]:
    prefix = _ids_prefix(feed, shard, bucket)
    return values.after(prefix, prefix)


def _ids_prefix(feed: Feed, shard: int, bucket: int) -> bytes:
    return feed.key("ids", shard) + b":%d:" % bucket


def _log_key(feed: Feed, shard: int, number: int) -> bytes:
    return feed.key("log", shard) + b":" + _NUMBER.pack(number)


def _end(values: Values, feed: Feed, shard: int) -> tuple[int, int]:
    held = values.get(feed.key("end", shard))
    return (0, 0) if held is None else (_END.unpack(held)[0], _END.unpack(held)[1])


def _packed(fields: Mapping[bytes, bytes]) -> bytes:
    """u32 little-endian length and name, u32 and value, …"""
    return b"".join(_SIZE.pack(len(part)) + part for pair in fields.items() for part in pair)


def _entry(key: bytes, value: bytes) -> Entry:
    number = _NUMBER.unpack(key[-8:])[0]
    parts, at = [], 0
    while at < len(value):
        end = at + 4 + _SIZE.unpack_from(value, at)[0]
        parts.append(value[at + 4 : end])
        at = end
    place = place_of(number)
    return Entry(place, stamped_us(place), dict(zip(parts[::2], parts[1::2], strict=True)))
