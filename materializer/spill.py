"""One scan of a source, set down by event date: the memory a run takes does not grow with the table.

All dates share one unlinked temporary file, so there is nothing to run out of (open files) and nothing to
clean up after a kill. The file is a sequence of Arrow IPC record-batch messages; an index says which messages
are a date's, in source order:

    file   | 01-02 | 01-01 | 01-03 | 01-01 | …         a message: rows of one date, in source order
    index  01-01: messages 1, 3   01-02: message 0   01-03: message 2

Rows are held up to `buffer_bytes` before they are written, so that a source in random order too gives few and
large messages; a thread writes them while the next are read, column by column from where Arrow has them. A message's
hash is taken once it is read back, which is when the stores are slower than we are. The file lies in the directory for
temporary files (TMPDIR) and takes about as many bytes as the rows take in Arrow.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from itertools import pairwise
from typing import IO, Final, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from fastserve.offline.latest import timestamps
from fastserve.offline.schema import EVENT_TS
from fastserve.timeutil import DAY_US
from materializer.aside import Aside

BUFFER_BYTES: Final = 16 << 20  # held, and as much again while the thread writes it
WRITE_BYTES: Final = 64 << 10  # smaller pieces are written together
MESSAGE_BYTES: Final = 1 << 20
CHUNK_BYTES: Final = 16 << 20
GROUP_ROWS: Final = 100_000
GROUP_DATES: Final = 64
_EPOCH: Final = date(1970, 1, 1)


class Rows(Protocol):
    """A view's rows by event date, UTC."""

    def dates(self) -> list[date]:
        """Those that have rows, newest first."""

    def rows_of(self, day: date) -> int:
        """How many rows a date has."""

    def chunks(self, day: date, *, last_first: bool = False) -> Iterator[pa.RecordBatch]:
        """A date's canonical rows; within a chunk in source order, and so the chunks, or their last first."""


@dataclass(slots=True)
class _Message:
    """Where one record-batch message lies in the file. `digest`: of its bytes; empty while nobody has read them."""

    offset: int
    nbytes: int
    digest: bytes = b""


@dataclass(slots=True)
class _Partition:
    """What the spill holds of one date."""

    messages: list[_Message] = field(default_factory=list)
    n_rows: int = 0


class Spill:
    """The rows of one scan by event date. A context manager; leaving it frees the disk space.

    Args:
        schema: the canonical schema, that of every batch.
        salt: goes into every digest: whatever else decides what a partition's rows become.
        buffer_bytes: how many bytes of rows are held before they are written; 0 for BUFFER_BYTES.

    Attributes:
        n_rows: rows added so far.
    """

    def __init__(self, schema: pa.Schema, *, salt: str = "", buffer_bytes: int = 0) -> None:
        self.n_rows = 0
        self._schema = schema
        self._salt = salt.encode() + schema.serialize().to_pybytes()
        self._buffer_bytes = buffer_bytes or BUFFER_BYTES
        self._partitions: dict[date, _Partition] = {}
        self._held: dict[int, list[pa.RecordBatch]] = {}
        self._held_bytes = 0
        self._writing = Aside()
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=WRITE_BYTES, prefix="fastserve-spill-")
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), schema)
        self._stream.write_batch(pa.RecordBatch.from_pylist([], schema))  # the schema goes before the first

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.clear()
        self._writing.__exit__()
        self._file.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next rows of the scan.

        Raises:
            OSError: the disk is full; of rows added before, too.
        """
        if not batch.num_rows:
            return
        days = np.floor_divide(timestamps(batch, EVENT_TS), DAY_US)
        if (days[1:] < days[:-1]).any():
            order = np.argsort(days, kind="stable")
            batch, days = batch.take(pa.array(order)), days[order]
        cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
        for start, end in pairwise(cuts):
            self._held.setdefault(int(days[start]), []).append(batch.slice(start, end - start))
        self.n_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_bytes >= self._buffer_bytes:
            self._write_held()

    def flush(self) -> None:
        """Write what is held; call it after the last batch, before reading.

        Raises:
            OSError: as `add`.
        """
        self._write_held()
        self._writing.finish()
        self._file.flush()

    def dates(self) -> list[date]:
        """The event dates (UTC) that have rows, newest first."""
        return sorted(self._partitions, reverse=True)

    def digest(self, day: date) -> str:
        """Hex digest of a date's rows. Equal digests mean equal rows in equal order; the reverse need not hold."""
        digest = hashlib.blake2b(self._salt, digest_size=16)
        for message in self._partitions[day].messages:
            if not message.digest:
                self._bytes(message)
            digest.update(message.digest)
        return digest.hexdigest()

    def rows_of(self, day: date) -> int:
        """How many rows a date has."""
        return self._partitions[day].n_rows

    def chunks(self, day: date, *, last_first: bool = False) -> Iterator[pa.RecordBatch]:
        """A date's rows, about 16 MiB at a time; within a chunk always in source order.

        Args:
            last_first: the last chunk of the source comes first.
        """
        groups = by_size(self._partitions[day].messages, CHUNK_BYTES)
        for group in reversed(groups) if last_first else groups:
            yield _joined([self._read(message) for message in group])

    def _write_held(self) -> None:
        held, self._held, self._held_bytes = self._held, {}, 0
        self._writing.do(partial(self._write, held))

    def _write(self, held: dict[int, list[pa.RecordBatch]]) -> None:
        """On the thread: nothing else touches the partitions and the file until it is done."""
        for day, batches in sorted(held.items()):
            for group in by_size(batches, MESSAGE_BYTES):
                self._append(_EPOCH + timedelta(days=day), _joined(group))

    def _append(self, day: date, batch: pa.RecordBatch) -> None:
        start = self._file.tell()
        self._stream.write_batch(batch)
        partition = self._partitions.setdefault(day, _Partition())
        partition.messages.append(_Message(start, self._file.tell() - start))
        partition.n_rows += batch.num_rows

    def _read(self, message: _Message) -> pa.RecordBatch:
        return pa.ipc.read_record_batch(pa.py_buffer(self._bytes(message)), self._schema)

    def _bytes(self, message: _Message) -> bytes:
        data = os.pread(self._file.fileno(), message.nbytes, message.offset)
        if not message.digest:
            message.digest = hashlib.sha1(data, usedforsecurity=False).digest()
        return data


def grouped(rows: Rows, most: int | None = None) -> Iterator[list[date]]:
    """The dates, newest first, small ones together: up to `most` (GROUP_ROWS) rows or GROUP_DATES dates at a time."""
    most = most or GROUP_ROWS
    days: list[date] = []
    n_rows = 0
    for day in rows.dates():
        if days and (n_rows + rows.rows_of(day) > most or len(days) == GROUP_DATES):
            yield days
            days, n_rows = [], 0
        days.append(day)
        n_rows += rows.rows_of(day)
    if days:
        yield days


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_T = TypeVar("_T", bound=_Sized)


def by_size(parts: Sequence[_T], n_bytes: int) -> list[list[_T]]:
    """Neighbours together, up to `n_bytes`; which, depends on nothing but their sizes."""
    groups: list[list[_T]] = []
    size = n_bytes
    for part in parts:
        if size + part.nbytes > n_bytes:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part.nbytes
    return groups


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
