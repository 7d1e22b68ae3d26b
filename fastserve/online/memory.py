"""``memory://`` and ``memory://name``: a real store in a dict, for tests and quick starts.

Stores of the same name share their rows within the process, and keep them when closed; a store
without a name has its own. Nothing is seen by another process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from threading import Lock
from typing import Final

from fastserve.batch import ReadBatch
from fastserve.errors import ConfigError
from fastserve.online.base import (
    ORDER,
    Lifetimes,
    OnRows,
    Opened,
    Rows,
    check_batch,
    rows_of,
)
from fastserve.online.exchange import check_exchange, may_replace
from fastserve.timeutil import now_us


class _Space:
    """The rows under one name: key -> (end of its life in microseconds UTC or 0, row)."""

    def __init__(self) -> None:
        self.rows: dict[bytes, tuple[int, bytes]] = {}
        self.lock = Lock()  # for stores of one name on several threads


_SPACES: Final[dict[str, _Space]] = {}


class MemoryStore(Opened):
    """See the module's docstring."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        name = url.removeprefix("memory://")
        if "?" in name:
            raise ConfigError("memory:// takes no options", where=url)
        super().__init__(url, read_only=read_only)
        self.tells_changes = False
        self._space = _SPACES.setdefault(name, _Space()) if name else _Space()

    def get_many(self, keys: Sequence[bytes]) -> Rows:
        """See OnlineStore."""
        self._check_open()
        now = now_us()
        held = map(self._space.rows.get, keys)
        return [e[1] if e is not None and (not e[0] or e[0] > now) else None for e in held]

    def get_fresh(self, keys: Sequence[bytes]) -> Rows:
        """See OnlineStore: every answer is."""
        return self.get_many(keys)

    def fetch(self, batch: ReadBatch, done: OnRows, now_us: int) -> bool:
        """See OnlineStore."""
        batch.fill(self.get_many(batch.missing_keys()), now_us)
        return True

    def on_changes(self, told: Callable[[bytes], None], listening: Callable[[bool], None]) -> None:
        """See OnlineStore: its writers tell nobody."""

    async def put_many(
        self, keys: Sequence[bytes], rows: Sequence[bytes], lifetimes_us: Lifetimes = None
    ) -> int:
        """See OnlineStore."""
        self._check_writable()
        keys, rows, lifetimes = check_batch(keys, rows, lifetimes_us)
        space = self._space
        written = 0
        with space.lock:
            now = now_us()
            for key, row, lifetime in zip(keys, rows, lifetimes, strict=True):
                held = space.rows.get(key)
                if held is None or 0 < held[0] <= now or row[ORDER] > held[1][ORDER]:
                    space.rows[key] = (now + lifetime if lifetime else 0, row)
                    written += 1
        return written

    async def put_batch(self, batch: ReadBatch, lifetimes_us: Lifetimes = None) -> int:
        """See OnlineStore."""
        return await self.put_many(batch.keys(), rows_of(batch), lifetimes_us)

    async def exchange_many(
        self, keys: Sequence[bytes], seen: Rows, rows: Rows, lifetimes_us: Lifetimes = None
    ) -> list[bool]:
        """See OnlineStore."""
        self._check_writable()
        space, done = self._space, []
        with space.lock:
            now = now_us()
            for key, old, row, lifetime in check_exchange(keys, seen, rows, lifetimes_us):
                end, held = space.rows.get(key, (0, None))
                may = may_replace(None if 0 < end <= now else held, old, row)
                done.append(may)
                if may and row is None:
                    space.rows.pop(key, None)
                elif may and row is not None:
                    space.rows[key] = (now + lifetime if lifetime else 0, row)
        return done

    async def delete_many(self, keys: Sequence[bytes]) -> int:
        """See OnlineStore."""
        self._check_writable()
        now = now_us()
        with self._space.lock:
            gone = [self._space.rows.pop(key, None) for key in keys]
        return sum(e is not None and (not e[0] or e[0] > now) for e in gone)

    async def sweep(self) -> int:
        """See OnlineStore."""
        self._check_writable()
        now = now_us()
        with self._space.lock:
            dead = [key for key, (end, _) in self._space.rows.items() if 0 < end <= now]
            for key in dead:
                del self._space.rows[key]
        return len(dead)

    async def scan(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """See OnlineStore."""
        self._check_open()
        now = now_us()
        with self._space.lock:
            held = list(self._space.rows.items())
        for key, (end, _) in held:
            if key.startswith(prefix) and (not end or end > now):
                yield key

    async def close(self) -> None:
        """See OnlineStore."""
        self._closed = True


def open_memory(url: str, read_only: bool) -> MemoryStore:
    """The opener of the scheme."""
    return MemoryStore(url, read_only=read_only)
