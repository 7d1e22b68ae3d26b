"""The seam to an online store: a few batch calls over bytes. A store knows nothing of views.

All it knows of a row is where its order stands: bytes 8 to 24 (docs/row-format.md), compared as
unsigned bytes. The larger is newer, and only a newer row replaces a stored one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fastserve.batch import ReadBatch
from fastserve.errors import InvalidDataError, StoreError, StoreUnavailableError

Rows: TypeAlias = list[bytes | None]
OnRows: TypeAlias = Callable[[StoreError | None], None]
Lifetimes: TypeAlias = Sequence[int | None] | npt.NDArray[np.int64] | None

ORDER: Final = slice(8, 24)
MIN_ROW_BYTES: Final = 24


class OnlineStore(Protocol):
    """What every online store does. One store object belongs to one process and one event loop.

    Keys are any bytes, rows at least 24 bytes. Empty batches are fine. Errors of the store are
    StoreUnavailableError and StoreTimeoutError, never those of the library beneath.

    Attributes:
        url: where the data is, without password; for messages.
        tells_changes: whether `on_changes` tells anything: what is kept of its rows can be kept right.
    """

    url: str
    tells_changes: bool

    def get_many(self, keys: Sequence[bytes]) -> Rows | asyncio.Future[Rows]:
        """The rows of the keys, None where there is none; the same key may come up twice.

        An embedded store answers at once with the list. A store across a socket returns a future
        which it resolves itself, so that no caller needs a task; cancelling it harms nobody else.
        """
        ...

    def get_fresh(self, keys: Sequence[bytes]) -> Rows | asyncio.Future[Rows]:
        """`get_many` by a question that is asked after this call, never shared with one on its way already.

        Whatever was acknowledged before this call shows in the answer.
        """
        ...

    def fetch(self, batch: ReadBatch, done: OnRows, now_us: int) -> bool:
        """Find the missing rows of a batch: the hot path's get_many.

        Rows may lie in memory that is valid only until `done` returns, or until the caller of `fetch` returns
        to the event loop when it answered True: decode them there and then, or `batch.own()` them.

        Args:
            batch: its UNKNOWN rows are filled in. Keep it until `done` is called; `batch.abandon()` says that
                nobody waits any more, and then nobody is called.
            done: called once, on the event loop, when the last row is in (with None) or the store failed (with the
                error; rows that came before it are in). It must not raise. Not called when True was answered.
            now_us: the time to note as each row's `fetched_us`.

        Returns:
            True when the rows are in already, as an embedded store's are.

        Raises:
            StoreError: an embedded store failed, or the store was closed.
        """
        ...

    def on_changes(self, told: Callable[[bytes], None], listening: Callable[[bool], None]) -> None:
        """Listen to what any writer of this store changes, where the store can tell; else do nothing.

        Args:
            told: called on the event loop with each change message (see `ReadBatch.from_packed`). The store has by
                then forgotten that it was asking for these keys: rows on their way are flagged CHANGED.
            listening: called with True when the feed is established, and with False when it is lost: changes from
                then on until the next True are not told.
        """
        ...

    async def put_many(
        self, keys: Sequence[bytes], rows: Sequence[bytes], lifetimes_us: Lifetimes = None
    ) -> int:
        """Write rows; the newest wins, atomically per key, against every other writer.

        A row replaces a stored one only where its order, ``row[8:24]``, is strictly greater. The same
        holds for a key that comes up twice in one batch. A batch is not atomic as a whole: after an
        error part of it may be written, and writing it again is harmless.

        Args:
            keys: n keys.
            rows: n rows.
            lifetimes_us: per row, microseconds from now until the store may drop it. 0 or None means
                forever; a negative one is over already, so the row is dropped at once.

        Returns:
            How many keys got a new row.

        Raises:
            InvalidDataError: for sequences of unequal length or a row shorter than 24 bytes.
        """
        ...

    async def put_batch(self, batch: ReadBatch, lifetimes_us: Lifetimes = None) -> int:
        """put_many without an object per row: the bulk path, from the encoders' memory to the store.

        Args:
            batch: distinct keys, each with a row that a RowEncoder made. Not to be changed before the return.
            lifetimes_us: see put_many.
        """
        ...

    async def exchange_many(
        self, keys: Sequence[bytes], seen: Rows, rows: Rows, lifetimes_us: Lifetimes = None
    ) -> list[bool]:
        """Replace rows that were looked at, each only where nobody wrote since; atomically per key.

        A key that holds another row by now gets the new one only if that is newer; one that holds nothing any
        more is left alone (exchange.py).

        Args:
            keys: n distinct keys.
            seen: what get_many gave for each; None for nothing.
            rows: what is to stand there; None to remove what was seen.
            lifetimes_us: see put_many.

        Returns:
            bool[n]: whether it was done.

        Raises:
            InvalidDataError: as put_many, and for a key that comes up twice.
        """
        ...

    async def delete_many(self, keys: Sequence[bytes]) -> int:
        """Remove keys; returns how many there were."""
        ...

    async def sweep(self) -> int:
        """Drop the rows whose lifetime is over, where the store does not do it by itself.

        Returns:
            How many were dropped; 0 for a store that does it by itself.
        """
        ...

    def scan(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """The keys that start with prefix, in no order, while others write.

        A key that is there throughout comes up, with Redis perhaps more than once while it resizes
        its tables; one that comes or goes meanwhile may or may not.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and files; a second call does nothing."""
        ...


def check_batch(
    keys: Sequence[bytes], rows: Sequence[bytes], lifetimes_us: Lifetimes
) -> tuple[Sequence[bytes], Sequence[bytes], Sequence[int]]:
    """A batch to write, checked, each key once with its newest row, lifetimes as ints (0: forever).

    Raises:
        InvalidDataError: for sequences of unequal length or a row shorter than 24 bytes.
    """
    lifetimes = lifetimes_of(lifetimes_us, len(keys))
    if not len(keys) == len(rows) == len(lifetimes):
        raise InvalidDataError(
            f"{len(keys)} keys, {len(rows)} rows and {len(lifetimes)} lifetimes do not pair up"
        )
    for i, row in enumerate(rows):
        if len(row) < MIN_ROW_BYTES:
            raise InvalidDataError(
                f"a row is at least {MIN_ROW_BYTES} bytes, this one has {len(row)}",
                where=f"row {i}, key {keys[i]!r}",
            )
    if len(set(keys)) == len(keys):
        return keys, rows, lifetimes
    newest: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        held = newest.setdefault(key, i)
        if rows[i][ORDER] > rows[held][ORDER]:
            newest[key] = i
    picks = newest.values()
    return list(newest), [rows[i] for i in picks], [lifetimes[i] for i in picks]


def rows_of(batch: ReadBatch) -> list[bytes]:
    """The rows of a batch that has them all."""
    return [row for row in batch.rows() if row is not None]


def lifetimes_of(lifetimes_us: Lifetimes, n: int) -> Sequence[int]:
    """Lifetimes as ints, 0 for ever; n zeros for None."""
    if lifetimes_us is None:
        return [0] * n
    if isinstance(lifetimes_us, np.ndarray):
        lifetimes_us = lifetimes_us.tolist()
    return [lifetime or 0 for lifetime in lifetimes_us]


def closed_error(url: str) -> StoreUnavailableError:
    """The error for a call on a closed store."""
    return StoreUnavailableError("the online store was closed", where=url)


class Opened:
    """What every store looks at before a call: it is open, and may be written.

    Attributes:
        url: without password, for messages.
    """

    def __init__(self, url: str, *, read_only: bool) -> None:
        self.url = url
        self._read_only = read_only
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error(self.url)

    def _check_writable(self) -> None:
        self._check_open()
        if self._read_only:
            hint = "open it without read_only"
            raise StoreError("the online store was opened read-only", where=self.url, hint=hint)
