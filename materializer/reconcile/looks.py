"""Two looks at a view's online rows: a difference is one that was there both times.

    first      every key of the history, or of a sample of it, and every key that only the store has
                 what is not equal goes on a list: key, history's row, the row that was held
    lock       the view: no materialization is between its two stores now
    tail       what came into the history meanwhile
    settle     a push writes history first; give those that are between the two time to finish
    second     the listed keys again; a row that others changed between the looks is no difference
    repair     exchange what was seen for what history says (online/exchange.py): what others write wins

Only the list costs a second look. Without one there is no lock, and no waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from fastserve.codec.rows import read_header
from fastserve.errors import CodecError
from fastserve.offline.online_rows import kept_us
from fastserve.online import OnlineStore
from fastserve.online.base import ORDER, Lifetimes, Rows
from materializer.reconcile.judge import PRUNED, REPAIRED, Judge, Kind
from materializer.reconcile.shards import SHARDS, Shards, parts_of
from materializer.reconcile.tally import Tally, example_of
from materializer.reconcile.truth import Encoded, Truth
from materializer.stop import Stop

SETTLE_S: Final = 2.0
LOOK_KEYS: Final = 4_096
EXAMPLES: Final = 5

Seen = dict[bytes, bytes | None]


class Looks:
    """See the module's docstring.

    Args:
        truth: the history.
        judge: says what is wrong with a key.
        store: looked at, and written to where something is to be put right.
        mend: the kinds to put right.
        ttl_us, now_us: what lifetimes of rows put right count from.
        masked: show hashes instead of keys.
        stop: asked between batches.
        told: how many rows of the history were read so far.
    """

    def __init__(  # noqa: PLR0913  (a call names each)
        self,
        truth: Truth,
        judge: Judge,
        store: OnlineStore,
        *,
        mend: frozenset[Kind],
        ttl_us: int | None,
        now_us: int,
        masked: bool,
        stop: Stop,
        told: Callable[[int], None],
    ) -> None:
        self.tally = Tally()
        self._truth, self._judge, self._store = truth, judge, store
        self._mend, self._ttl_us, self._now_us, self._masked = mend, ttl_us, now_us, masked
        self._stop, self._told = stop, told

    # ---- the first look ----------------------------------------------------------------------------

    async def first(self, suspects: Shards, sample: tuple[int, int] | None) -> None:
        """Compare all keys, or (n, seed) of a sample; what is not equal goes to `suspects`: row, held."""
        with Shards("row") as history, Shards() as online:
            rows = self._truth.rows() if sample is None else self._truth.sample(*sample)
            self._spill(rows, history)
            if sample is None:
                async for keys in _batched(self._store.scan(self._truth.prefix)):
                    self._stop.check()
                    online.add(keys)
                online.flush()
            for shard in range(SHARDS):
                parts = parts_of(shard, history, online)
                for part in range(parts):
                    truth: Seen = {}
                    for keys, _ in online.read(shard, part, parts):
                        truth.update(dict.fromkeys(keys))
                    for keys, (found,) in history.read(shard, part, parts):
                        _take_newer(truth, keys, found)
                    await self._compare(truth, suspects)
        suspects.flush()

    async def _compare(self, truth: Seen, suspects: Shards) -> None:
        async for keys, rows, held in self._held(truth):
            kinds = self._judge.judge(keys, rows, held)
            suspicious = [i for i, kind in enumerate(kinds) if kind not in ("equal", "recent")]
            columns = ([column[i] for i in suspicious] for column in (rows, held))
            suspects.add([keys[i] for i in suspicious], *columns)
            self.tally.keys += len(keys)
            for i, kind in enumerate(kinds):
                if kind == "recent":
                    self._note(kind, keys[i], rows[i], held[i])
            self.tally.counts["equal"] += kinds.count("equal")

    def _spill(self, rows: Iterable[Encoded], to: Shards) -> None:
        for keys, found in rows:
            self._stop.check()
            to.add(keys, found)
            self._told(to.n_keys)
        to.flush()

    # ---- the second look ---------------------------------------------------------------------------

    async def second(self, suspects: Shards) -> None:
        """Look again at the keys on the list, and put right what is to be. The view's lock is held."""
        again, rows = self._truth.since()
        with Shards("row") as tail:
            self._spill(rows, tail)
            settled = time.monotonic() + SETTLE_S
            while (left := settled - time.monotonic()) > 0:
                self._stop.check()
                await asyncio.sleep(min(left, 0.2))
            for shard in range(SHARDS):
                parts = parts_of(shard, suspects, tail)
                for part in range(parts):
                    truth: Seen = {}
                    before: Seen = {}
                    for keys, (found, held) in suspects.read(shard, part, parts):
                        truth.update(zip(keys, [None] * len(keys) if again else found, strict=True))
                        before.update(zip(keys, held, strict=True))
                    for keys, (found,) in tail.read(shard, part, parts):
                        mine = [i for i, key in enumerate(keys) if key in before]
                        _take_newer(truth, [keys[i] for i in mine], [found[i] for i in mine])
                    await self._confirm(truth, before)

    async def _confirm(self, truth: Seen, before: Seen) -> None:
        async for keys, rows, held in self._held(truth):
            kinds = self._judge.judge(keys, rows, held)
            for i, kind in enumerate(kinds):
                if held[i] != before[keys[i]] and kind not in ("equal", "recent"):
                    kinds[i] = "changed"
            undone = await self._repair(kinds, keys, rows, held)
            for i, kind in enumerate(kinds):
                self._note("changed" if i in undone else kind, keys[i], rows[i], held[i])
                if kind in self._mend and i not in undone:
                    self.tally.repaired[kind] += 1

    async def _repair(self, kinds: Sequence[Kind], keys: Sequence[bytes], rows: Rows, held: Rows) -> set[int]:
        """Put right what is to be; which of these others wrote to just now."""
        wanted = [i for i, kind in enumerate(kinds) if kind in self._mend]
        if not wanted:
            return set()
        new = [rows[i] for i in wanted]
        lifetimes = self._lifetimes(new)
        seen = [held[i] for i in wanted]
        done = await self._store.exchange_many([keys[i] for i in wanted], seen, new, lifetimes)
        return {i for i, one in zip(wanted, done, strict=True) if not one}

    def _lifetimes(self, rows: Rows) -> Lifetimes:
        """How long rows that are put right are to live, as for any writer; None for ever."""
        kept = kept_us(self._ttl_us)
        if kept is None:
            return None
        events = [self._now_us if row is None else read_header(row)[1] for row in rows]
        return np.array(events, np.int64) + (kept - self._now_us)

    # ---- both --------------------------------------------------------------------------------------

    async def _held(self, truth: Seen) -> AsyncIterator[tuple[list[bytes], Rows, Rows]]:
        """(keys, history's rows, rows held) of all keys, some thousands at a time."""
        keys = list(truth)
        for start in range(0, len(keys), LOOK_KEYS):
            self._stop.check()
            part = keys[start : start + LOOK_KEYS]
            rows = self._store.get_many(part)
            held = await rows if isinstance(rows, Awaitable) else rows
            yield part, [truth[key] for key in part], held

    def _note(self, kind: Kind, key: bytes, row: bytes | None, held: bytes | None) -> None:
        self.tally.counts[kind] += 1
        if kind == "equal" or len(examples := self.tally.examples.setdefault(kind, [])) >= EXAMPLES:
            return
        fields = []
        if kind in ("value", "filled") and row is not None and held is not None:
            fields = self._judge.differing(key, row, held)
        online_us = None if kind == "corrupt" else _event_us(held)
        examples.append(example_of(self._shown(key), _event_us(row), online_us, fields))

    def _shown(self, key: bytes) -> dict[str, Any]:
        if self._masked:
            return {"blake2": blake2b(key, digest_size=8).hexdigest()}
        try:
            named = self._truth.named(key)
        except CodecError:  # nobody asks for such a key
            return {"raw": key.decode("utf-8", "backslashreplace")}
        return {name: value.hex() if isinstance(value, bytes) else value for name, value in named.items()}


def kinds_to_mend(*, repair: bool, prune: bool) -> frozenset[Kind]:
    """The kinds of differences that are put right."""
    if not repair:
        return frozenset()
    return REPAIRED | PRUNED if prune else REPAIRED


def _take_newer(truth: Seen, keys: Sequence[bytes], rows: Sequence[bytes]) -> None:
    """Rows that replace what is held of their keys: newer ones, and of equal order the later one."""
    for key, row in zip(keys, rows, strict=True):
        held = truth.get(key)
        if held is None or row[ORDER] >= held[ORDER]:
            truth[key] = row


def _event_us(row: bytes | None) -> int | None:
    return None if row is None else read_header(row)[1]


async def _batched(keys: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    found: list[bytes] = []
    async for key in keys:
        found.append(key)
        if len(found) == LOOK_KEYS:
            yield found
            found = []
    yield found
