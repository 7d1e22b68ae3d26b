"""``lmdb://path``: the embedded store, one memory-mapped file shared by all processes of a machine.

``lmdb://online`` is relative to the working directory, ``lmdb:///var/lib/fastserve/online`` is not;
the path is a directory. Options: ``?map_size=`` bytes, or with the unit MiB or GiB, to reserve
(64GiB; address space, not disk, and it grows by itself); ``?sync=off`` does not wait for the disk.

An acknowledged write survives the death of the process, and of the machine too unless sync is off.
Readers never wait for writers and see what other processes committed at the next call; writers of
all processes take turns. Open a store after a fork, not before: a worker opens its own.

    stored key    the key, or, of an empty one or one of 511 bytes and more (LMDB's limit):
                  its first 479 bytes, padded with zeros, and its 32-byte BLAKE2b; always 511 bytes
    stored value  8 bytes end of life, microseconds UTC, big-endian, all ones for never;
                  in the second case above u32 length and the key; then the row
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import lmdb

from fastserve.batch import ReadBatch
from fastserve.errors import ConfigError, StoreError, StoreUnavailableError
from fastserve.online.base import (
    Lifetimes,
    OnRows,
    Opened,
    Rows,
    check_batch,
    rows_of,
)
from fastserve.online.exchange import check_exchange, may_replace
from fastserve.online.lmdb_values import (
    END,
    KEPT,
    LENGTH,
    MAX_KEY,
    Values,
    end_of_life,
    is_long,
    row_value,
    stored_key,
)
from fastserve.timeutil import now_us

T = TypeVar("T")

_WRITE_ROWS: Final = 10_000  # rows a write transaction, so that other writers get a turn
_SCAN_ROWS: Final = 1_000
_MAX_READERS: Final = 1_024
_LOOK_S: Final = 1.0
_UNITS: Final = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class _Environment:
    """LMDB's handle on a file, one per process: opening a file twice would break its locks.

    `reading` is held while a read transaction is open in this process and while the map is resized,
    which LMDB allows only when no transaction is open; `writing` by the one writer of this process.
    Who needs both takes `writing` first.
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.path = path
        self.options = options
        self.users = 0
        self.reading = Lock()
        self.writing = Lock()
        self._look_at = 0.0
        self.handle = self._open()

    def _open(self) -> lmdb.Environment:
        while True:
            try:
                handle = lmdb.open(
                    self.path,
                    subdir=True,
                    max_readers=_MAX_READERS,
                    max_spare_txns=2,
                    readahead=False,
                    **self.options,
                )
            except lmdb.MapResizedError:  # another process grew it between two steps of opening: look again
                continue
            handle.reader_check()  # frees the slots of readers that were killed
            self._file = _identity(self.path)
            return handle

    def _check_file(self) -> None:
        """Once a second: a map of a deleted file reads well for ever, and what is written to it is lost.

        A new file in its place may be another registry's, so it is not opened by itself.
        """
        now = time.monotonic()
        if now < self._look_at:
            return
        if _identity(self.path) != self._file:
            raise lmdb.Error("the file was removed or replaced since it was opened; start again to open it")
        self._look_at = now + _LOOK_S

    def make_writable(self) -> None:
        """Reopen an environment that was opened read-only."""
        with self.writing, self.reading:
            if self.options["readonly"]:
                self.handle.close()
                self.options = {**self.options, "readonly": False, "create": True}
                self.handle = self._open()

    def read(self, work: Callable[[lmdb.Transaction[Any]], T], buffers: bool = False) -> T:
        """Run work in a fresh read transaction, which sees all commits so far."""
        self._check_file()
        while True:
            try:
                with self.reading:
                    begin: Callable[..., Any] = self.handle.begin
                    with begin(buffers=buffers) as txn:
                        return work(txn)
            except lmdb.MapResizedError:
                with self.writing, self.reading:
                    self.handle.set_mapsize(0)  # adopt what another process made of it

    def write(self, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        """Run work in a write transaction, again in a larger map when it was full."""
        self._check_file()
        with self.writing:
            while True:
                try:
                    with self.handle.begin(write=True) as txn:
                        return work(txn)
                except lmdb.MapFullError:
                    with self.reading:
                        self.handle.set_mapsize(2 * self.handle.info()["map_size"])
                except lmdb.MapResizedError:
                    with self.reading:
                        self.handle.set_mapsize(0)


def _identity(path: str) -> tuple[int, int] | None:
    """Which file is at the path; None when there is none."""
    try:
        found = os.stat(os.path.join(path, "data.mdb"))
    except OSError:
        return None
    return found.st_dev, found.st_ino


_OPEN: Final[dict[str, _Environment]] = {}
_OPENING = Lock()


def _after_fork() -> None:
    """Let a forked child open the files afresh: what it inherited is not its own."""
    global _OPENING  # the parent's may have been held by another thread
    _OPENING = Lock()
    for environment in _OPEN.values():
        environment.handle.close()
    _OPEN.clear()


os.register_at_fork(after_in_child=_after_fork)


def _acquire(path: str, options: dict[str, Any]) -> _Environment:
    with _OPENING:
        name = os.path.realpath(path)
        environment = _OPEN.get(name)
        if environment is None:
            environment = _OPEN[name] = _Environment(path, options)
        elif not options["readonly"]:
            environment.make_writable()
        environment.users += 1
        return environment


def _release(environment: _Environment) -> None:
    with _OPENING, environment.writing, environment.reading:
        environment.users -= 1
        if not environment.users:
            environment.handle.close()
            for name in [name for name, held in _OPEN.items() if held is environment]:
                del _OPEN[name]


class LmdbStore(Opened):
    """See the module's docstring.

    Args:
        url: for messages.
        path: the directory.
        read_only: refuse writes.
        map_size: bytes of address space to reserve.
        sync: wait for the disk on commit.

    Raises:
        StoreUnavailableError: when the file cannot be opened, or is missing and read_only is set.
    """

    def __init__(self, url: str, path: str, *, read_only: bool, map_size: int, sync: bool = True) -> None:
        super().__init__(url, read_only=read_only)
        self.tells_changes = False
        self._pid = os.getpid()
        options = {"map_size": map_size, "sync": sync, "readonly": read_only}
        if not read_only:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._environment: _Environment | None = _acquire(path, {**options, "create": not read_only})
        except (lmdb.Error, OSError) as error:
            hint = "materialize into it first, or check the path" if read_only else ""
            raise StoreUnavailableError(
                f"cannot open the LMDB store: {error}", where=url, hint=hint
            ) from error

    def get_many(self, keys: Sequence[bytes]) -> Rows:
        """See OnlineStore."""
        return self._run(lambda environment: environment.read(partial(_get, keys)))

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
        """See OnlineStore. Rows are committed in transactions of up to 10,000."""
        self._check_writable()
        keys, rows, lifetimes = check_batch(keys, rows, lifetimes_us)
        now = now_us()
        # In the order of the tree: neighbours share pages, and pages are copied once.
        batch = sorted(zip(keys, rows, map(partial(end_of_life, now), lifetimes), strict=True))
        parts = [batch[i : i + _WRITE_ROWS] for i in range(0, len(batch), _WRITE_ROWS)]
        return await asyncio.to_thread(
            self._run,
            lambda environment: sum(environment.write(partial(_put, now, part)) for part in parts),
        )

    async def put_batch(self, batch: ReadBatch, lifetimes_us: Lifetimes = None) -> int:
        """See OnlineStore."""
        return await self.put_many(batch.keys(), rows_of(batch), lifetimes_us)

    async def exchange_many(
        self, keys: Sequence[bytes], seen: Rows, rows: Rows, lifetimes_us: Lifetimes = None
    ) -> list[bool]:
        """See OnlineStore."""
        self._check_writable()
        batch = check_exchange(keys, seen, rows, lifetimes_us)
        return await asyncio.to_thread(
            self._run, lambda environment: environment.write(partial(_exchange, now_us(), batch))
        )

    async def delete_many(self, keys: Sequence[bytes]) -> int:
        """See OnlineStore."""
        self._check_writable()
        return await asyncio.to_thread(
            self._run, lambda environment: environment.write(partial(_delete, now_us(), keys))
        )

    async def sweep(self) -> int:
        """See OnlineStore."""
        self._check_writable()
        return await asyncio.to_thread(self._run, _sweep)

    async def scan(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """See OnlineStore; the keys come sorted."""
        start: bytes | None = prefix[:KEPT]
        while start is not None:
            page, start = self._run(partial(_page, start, prefix))
            now = END.pack(now_us())
            for _, key, end in page:
                if end >= now and key.startswith(prefix):
                    yield key
            await asyncio.sleep(0)

    async def close(self) -> None:
        """See OnlineStore."""
        await asyncio.to_thread(self.release)

    def release(self) -> None:
        """`close`, for callers without a loop."""
        self._closed = True
        environment, self._environment = self._environment, None
        if environment is not None and self._pid == os.getpid():
            _release(environment)

    def transact(self, work: Callable[[Values], T], *, write: bool) -> T:
        """Run work as one transaction, and again if it has to be; for who keeps more here than rows; see Values."""
        if write:
            self._check_writable()
            return self._run(lambda environment: environment.write(lambda txn: work(Values(txn))))
        return self._run(lambda environment: environment.read(lambda txn: work(Values(txn))))

    def _run(self, work: Callable[[_Environment], T]) -> T:
        self._check_open()
        environment = self._environment
        assert environment is not None
        if self._pid != os.getpid():
            raise StoreError(
                "the LMDB store was opened before a fork",
                where=self.url,
                hint="open the store in the worker process",
            )
        try:
            return work(environment)
        except lmdb.Error as error:
            raise StoreUnavailableError(f"LMDB failed: {error}", where=self.url) from error


# ---- inside a transaction ----------------------------------------------------------------------


def _get(keys: Sequence[bytes], txn: lmdb.Transaction[bytes]) -> Rows:
    now = END.pack(now_us())
    if any(map(is_long, keys)):
        return [_live_row(now, key, txn.get(stored_key(key))) for key in keys]
    # A value starts with its end of life, so it compares with the time as it is.
    return [v[8:] if v is not None and v > now else None for v in map(txn.get, keys)]


def _live_row(now: bytes, key: bytes, value: bytes | None) -> bytes | None:
    """The row in a stored value, unless its life is over or it is of another key."""
    if value is None or value[:8] < now:
        return None
    if not is_long(key):
        return value[8:]
    end = 12 + LENGTH.unpack_from(value, 8)[0]
    return value[end:] if value[12:end] == key else None


def _put(now: int, batch: Iterable[tuple[bytes, bytes, bytes]], txn: lmdb.Transaction[bytes]) -> int:
    written = 0
    now_end = END.pack(now)
    for key, row, end in batch:
        stored = stored_key(key)
        held = _live_row(now_end, key, txn.get(stored))
        if held is None or row[8:24] > held[8:24]:
            txn.put(stored, row_value(key, row, end))
            written += 1
    return written


def _exchange(
    now: int, batch: Iterable[tuple[bytes, bytes | None, bytes | None, int]], txn: lmdb.Transaction[bytes]
) -> list[bool]:
    done = []
    now_end = END.pack(now)
    for key, seen, row, lifetime in batch:
        stored = stored_key(key)
        may = may_replace(_live_row(now_end, key, txn.get(stored)), seen, row)
        done.append(may)
        if may and row is None:
            txn.delete(stored)
        elif may and row is not None:
            txn.put(stored, row_value(key, row, end_of_life(now, lifetime)))
    return done


def _delete(now: int, keys: Iterable[bytes], txn: lmdb.Transaction[bytes]) -> int:
    deleted = 0
    now_end = END.pack(now)
    for key in keys:
        stored = stored_key(key)
        if _live_row(now_end, key, txn.get(stored)) is not None:
            txn.delete(stored)
            deleted += 1
    return deleted


_Entry = tuple[bytes, bytes, bytes]  # stored key, key, end of life


def _page(start: bytes, prefix: bytes, environment: _Environment) -> tuple[list[_Entry], bytes | None]:
    """The next entries from start on, and where to go on, or None at the end."""
    return environment.read(partial(_read_page, start, prefix[:KEPT]), buffers=True)


def _read_page(
    start: bytes, prefix: bytes, txn: lmdb.Transaction[memoryview]
) -> tuple[list[_Entry], bytes | None]:
    entries: list[_Entry] = []
    cursor = txn.cursor()
    if not (cursor.set_range(start) if start else cursor.first()):
        return entries, None
    for view, value in cursor.iternext():
        stored = bytes(view)
        if len(entries) == _SCAN_ROWS:
            return entries, stored
        if not stored.startswith(prefix):
            break
        key = stored
        if len(stored) == MAX_KEY:
            key = bytes(value[12 : 12 + LENGTH.unpack(value[8:12])[0]])
        entries.append((stored, key, bytes(value[:8])))
    return entries, None


def _sweep(environment: _Environment) -> int:
    """Find the dead without a write transaction, page by page; look again before deleting."""
    dropped = 0
    for page in _pages(environment):
        now = END.pack(now_us())
        dead = [stored for stored, _, end in page if end < now]
        if dead:
            dropped += environment.write(partial(_drop, now, dead))
    return dropped


def _pages(environment: _Environment) -> Iterator[list[_Entry]]:
    start: bytes | None = b""
    while start is not None:
        page, start = _page(start, b"", environment)
        yield page


def _drop(now: bytes, dead: Iterable[bytes], txn: lmdb.Transaction[bytes]) -> int:
    dropped = 0
    for stored in dead:
        value = txn.get(stored)
        if value is not None and value[:8] < now:
            txn.delete(stored)
            dropped += 1
    return dropped


# ---- URL ---------------------------------------------------------------------------------------


def open_lmdb(url: str, read_only: bool) -> LmdbStore:
    """The opener of the scheme.

    Raises:
        ConfigError: for a missing path or an unknown or malformed option.
        StoreUnavailableError: when the file cannot be opened.
    """
    path, _, query = url.removeprefix("lmdb://").partition("?")
    if not path:
        raise ConfigError("the path is missing", where=url, hint="lmdb://.fastserve/online")
    options = dict(parse_qsl(query, keep_blank_values=True))
    map_size = _size(url, options.pop("map_size", "64GiB"))
    sync = options.pop("sync", "on")
    if options or sync not in ("on", "off"):
        bad = next(iter(options), f"sync={sync}")
        raise ConfigError(f"unknown option {bad!r}", where=url, hint="map_size=64GiB, sync=on|off")
    return LmdbStore(url, os.path.expanduser(path), read_only=read_only, map_size=map_size, sync=sync == "on")


def _size(url: str, text: str) -> int:
    number, unit = (text[:-3], _UNITS[text[-3:]]) if text[-3:] in _UNITS else (text, 1)
    if not number.isascii() or not number.isdecimal() or not int(number):
        raise ConfigError(f"{text!r} is not a size", where=url, hint="map_size=64GiB")
    return int(number) * unit
