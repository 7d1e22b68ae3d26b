"""The offline table of a view version: a Delta Lake table with every row the view ever had, kept once.

    <offline root>/<project>/<view>/v<version>/     partitioned by event_date (UTC date of the event time)

A row is known by (join keys, event time, created time), and the event time decides its partition: looking for
doubles never leaves the partitions of the rows given. One append, of however many dates, is one commit, and
carries a transaction number of the table: of two writers that both looked before either had committed, only one
succeeds, and the other looks again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from fastserve.errors import InvalidDataError, MaterializeError, OfflineStoreError
from fastserve.offline.cast import cast_column, cell
from fastserve.offline.latest import timestamps
from fastserve.offline.parquet import writer_properties
from fastserve.offline.schema import (
    CREATED_TS,
    EVENT_DATE,
    EVENT_TS,
    LAYOUT,
    TIMESTAMP,
    canonical_schema,
    feature_types,
    key_types,
)
from fastserve.timeutil import DAY_US

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

BATCH_ROWS: Final = 65_536
SPOOL_BYTES: Final = 64 << 20
ATTEMPTS: Final = 8
_APPEND: Final = "fastserve-append"
_CONFIGURATION: Final = {
    "delta.checkpointInterval": "50",  # opening a table reads at most this many small log files
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of an append: rows given, and how many of them were new and are now in the table.

    `new_of` has the latter for each batch given.
    """

    rows_in: int
    rows_new: int
    new_of: tuple[int, ...] = field(default=(), compare=False)


@contextmanager
def tended(uri: str) -> Iterator[None]:
    """Turn what Delta, Arrow and the file system raise into OfflineStoreError naming the table."""
    try:
        yield
    except (DeltaError, pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]  # beneath it: a stack of Rust
        raise OfflineStoreError(
            f"the offline table cannot be read or written: {reason}",
            where=uri,
            hint="check its files, their permissions and the disk; a damaged table is filled again by removing "
            "it and running the materializer from its --start to its --end",
        ) from error


class OfflineTable:
    """The table of one view version. Opening it costs nothing; it is created by the first append.

    Args:
        root: directory or URL of all offline tables (`Config.offline_store`).
        project: the project's name.
        rv: the view version; its layouts say what a null means (schema.layouts_without).
    """

    def __init__(self, root: str, project: str, rv: RegisteredView) -> None:
        self.rv = rv
        self.uri = f"{root.rstrip('/')}/{project}/{rv.view.name}/v{rv.view.version}"

    def __repr__(self) -> str:
        return f"OfflineTable({self.uri!r})"

    # ---- what is there ----------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether anything was ever appended."""
        return bool(DeltaTable.is_deltatable(self.uri))

    @property
    def version(self) -> int | None:
        """The newest version number, for reads that must be repeatable; None without a table."""
        table = self.open()
        return None if table is None else int(table.version())

    @property
    def table_id(self) -> str:
        """Given to the table when it was created, never again; '' without a table."""
        table = self.open()
        return "" if table is None else str(table.metadata().id)

    def row_count(self, version: int | None = None) -> int:
        """Rows in the table, from the log alone."""
        table = self.open(version)
        return 0 if table is None else int(table.count())

    def dates(self, version: int | None = None) -> list[str]:
        """The partitions that hold rows, ascending."""
        table = self.open(version)
        return [] if table is None else sorted({p[EVENT_DATE] for p in table.partitions()})

    def open(self, version: int | None = None) -> DeltaTable | None:
        """The Delta table as it is now, or was at a version; None without a table."""
        try:
            return DeltaTable(self.uri, version=version)
        except TableNotFoundError:
            return None

    # ---- reading ----------------------------------------------------------------------------

    def read(
        self,
        columns: Sequence[str] | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        version: int | None = None,
        since: int | None = None,
        newest_first: bool = False,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Rows of event times ``[start_us, end_us)`` in `canonical_schema(rv, columns)`, streaming.

        By ascending date, or descending; within a date in no particular order, which decides nothing: no two
        rows have the same keys, event time and created time. Only the partitions and columns needed are read. A
        feature younger than a row reads as null there.

        Args:
            columns: features; None for all.
            version: an earlier version of the table, for repeatable reads.
            since: only files that this version did not have: what was appended since, and what was written again.

        Raises:
            OfflineStoreError: the table cannot be read.
        """
        with tended(self.uri):
            table, before = self.open(version), None if since is None else self.open(since)
            if table is None or (start_us is not None and end_us is not None and start_us >= end_us):
                return
            known = set() if before is None else {f.path for f, _ in _fragments(before, None)}
            condition = _condition(start_us, end_us)
            files = [(f, s) for f, s in _fragments(table, condition) if f.path not in known]
            yield from self._read(files[::-1] if newest_first else files, columns, condition, batch_rows)

    def files(
        self, start_us: int | None, end_us: int | None, version: int | None = None
    ) -> list[tuple[ds.ParquetFileFragment, pa.Schema]]:
        """The files that may hold rows of ``[start_us, end_us)``, by date; each with the table's schema."""
        table = self.open(version)
        if table is None or (start_us is not None and end_us is not None and start_us >= end_us):
            return []
        return list(_fragments(table, _condition(start_us, end_us)))

    def _read(
        self,
        files: Iterable[tuple[ds.ParquetFileFragment, pa.Schema]],
        columns: Sequence[str] | None,
        condition: ds.Expression | None,
        batch_rows: int,
    ) -> Iterator[pa.RecordBatch]:
        schema = canonical_schema(self.rv, columns)
        for fragment, stored in files:
            present = [name for name in schema.names if name in stored.names]
            for batch in fragment.to_batches(
                schema=stored,
                columns=present,
                filter=condition,
                batch_size=batch_rows,
                batch_readahead=4,
            ):
                if batch.num_rows:
                    yield conformed(batch, schema, self.rv)

    # ---- writing ----------------------------------------------------------------------------

    def append_new(self, batches: Iterable[pa.RecordBatch]) -> AppendResult:
        """Add the rows that the table does not hold yet, in one atomic commit.

        A row that stands there already stays as it was first written; of equal rows within one call the last
        counts. Memory is the keys and times of the rows given and of the partitions they fall into; features
        pass through, by way of a temporary file where they are many. A commit costs some ten milliseconds, so
        give it as many small dates at once as come together.

        Args:
            batches: rows in the canonical schema with all features.

        Raises:
            InvalidDataError: a batch of another schema.
            MaterializeError: other writers were faster, again and again; nothing was written.
            OfflineStoreError: the table cannot be read or written.
        """
        with closing(_Spool(canonical_schema(self.rv), SPOOL_BYTES)) as spool:
            names = [*key_types(self.rv), EVENT_TS, CREATED_TS]
            keys = [spool.add(batch).select(names) for batch in batches]
            if not spool.rows:
                return AppendResult(0, 0, (0,) * len(keys))
            given = pa.Table.from_batches(keys)
            for _ in range(ATTEMPTS):
                with tended(self.uri):
                    table = self.open()
                    new = self.is_new(table, given)
                    rows_new = int(np.count_nonzero(new))
                    done = not rows_new or self._commit(table, spool, new)
                if done:
                    ends = np.cumsum([0, *(part.num_rows for part in keys)])
                    before = np.concatenate(([0], np.cumsum(new)))[ends]
                    return AppendResult(spool.rows, rows_new, tuple(np.diff(before).tolist()))
        raise MaterializeError(
            "other writers changed the table each time we tried; nothing was written",
            where=self.uri,
            hint="run the same command again: rows that are there already are left out",
        )

    def as_stored(self, given: pa.RecordBatch) -> pa.RecordBatch:
        """The given rows as they stand in the table, which keeps a row as it was first written.

        Rows written with another layout than the current one, and rows the table lacks, come back as given.

        Args:
            given: rows in the canonical schema with all features.
        """
        names = [*key_types(self.rv), EVENT_TS, CREATED_TS]
        times = timestamps(given, EVENT_TS)
        batches = self.read(None, int(times.min()), int(times.max()) + 1) if len(times) else ()
        stored = pa.Table.from_batches(batches, given.schema)
        stored = stored.filter(pc.equal(stored[LAYOUT], self.rv.layout.layout_id))
        # position   0 … n-1 are the rows given, n … those stored; of each key the largest counts
        both = pa.concat_tables([pa.Table.from_batches([given]), stored])
        keys = both.select(names).append_column("position", pa.array(np.arange(len(both))))
        groups = keys.group_by(names).aggregate([("position", "min"), ("position", "max")])
        wanted = groups.filter(pc.less(groups["position_min"], given.num_rows))["position_max"]
        return both.take(wanted.sort()).combine_chunks().to_batches()[0] if given.num_rows else given

    def is_new(self, table: DeltaTable | None, given: pa.Table) -> npt.NDArray[np.bool_]:
        """Per row given, whether it is to be written: the last of its key, and not in the table."""
        names = given.schema.names
        position = pa.array(np.arange(len(given)))
        tables = [given.append_column("position", position)]
        if table is not None:
            days = days_of(given.column(EVENT_TS)).unique().to_pylist()
            near = _near(given.column(EVENT_TS))
            for fragment, stored in _fragments_of(table, days, near):
                old = fragment.to_table(schema=stored, columns=names, filter=near).cast(given.schema)
                tables.append(old.append_column("position", pa.repeat(len(given), len(old))))
        # An old row's position is beyond all given ones: where one stands, the maximum is none of them.
        last = pa.concat_tables(tables).group_by(names).aggregate([("position", "max")])["position_max"]
        new = np.zeros(len(given) + 1, np.bool_)
        new[last.to_numpy()] = True
        return new[:-1]

    def _commit(self, table: DeltaTable | None, spool: _Spool, new: npt.NDArray[np.bool_]) -> bool:
        """Write the new rows; False when another writer committed since `table` was opened."""
        schema = spool.schema.append(pa.field(EVENT_DATE, pa.date32()))
        if table is None:
            try:
                table = create_table(self.uri, schema)
            except CommitFailedError:  # another writer creates it at this moment
                return False
            if table.version():  # another writer created it, and has appended already
                return False

        def rows() -> Iterator[pa.RecordBatch]:
            at = 0
            for batch in spool:
                kept = batch.filter(pa.array(new[at : at + batch.num_rows]))
                at += batch.num_rows
                yield pa.RecordBatch.from_arrays(
                    [*kept.columns, days_of(kept.column(EVENT_TS))], schema=schema
                )

        try:
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(schema, rows()),
                mode="append",
                schema_mode="merge",
                writer_properties=writer_properties(schema),
                commit_properties=append_properties(table),
            )
        except CommitFailedError:
            return False
        return True


def create_table(uri: str, schema: pa.Schema) -> DeltaTable:
    """Make an offline table; where there is one already, that one."""
    return DeltaTable.create(
        uri, schema, mode="ignore", partition_by=[EVENT_DATE], configuration=_CONFIGURATION
    )


def append_properties(table: DeltaTable) -> CommitProperties:
    """Of an append to the table as it was opened: of two writers that opened the same version one fails."""
    number = (table.transaction_version(_APPEND) or 0) + 1
    return CommitProperties(app_transactions=[Transaction(_APPEND, number)])


def table_state(uri: str) -> tuple[str, int]:
    """(id, newest version) of a Delta table.

    Raises:
        InvalidDataError: there is none.
    """
    try:
        table = DeltaTable(uri)
    except (DeltaError, OSError) as error:
        raise InvalidDataError(f"cannot be read: {error}", where=f"Delta table {uri}") from None
    return str(table.metadata().id), int(table.version())


def why_unreadable(uri: str, version: int, table_id: str) -> str:
    """Why a version of a Delta table can no longer be read; '' when it can."""
    try:
        if not DeltaTable.is_deltatable(uri):
            return f"there is no Delta table at {uri} any more"
        if (found := str(DeltaTable(uri).metadata().id)) != table_id:
            return f"the table at {uri} is another one ({found}): it was removed and made anew"
        dataset = DeltaTable(uri, version=version).to_pyarrow_dataset()
    except (DeltaError, OSError) as error:
        reason = str(error).partition("\n")[0]
        return f"version {version} vacuumed: the log of {uri} no longer reaches back to it ({reason})"
    paths = [fragment.path for fragment in dataset.get_fragments()]
    infos = dataset.filesystem.get_file_info(paths) if paths else []
    gone = sum(info.type == pafs.FileType.NotFound for info in infos)
    if gone:
        return f"version {version} vacuumed: {gone} of its {len(infos)} files in {uri} are deleted"
    return ""


class _Spool:
    """Batches to be read again: in memory up to a size, beyond it in a temporary Arrow file."""

    def __init__(self, schema: pa.Schema, limit_bytes: int) -> None:
        self.schema = schema
        self.rows = 0
        self._limit_bytes = limit_bytes
        self._size = 0
        self._batches: list[pa.RecordBatch] = []
        self._file: IO[bytes] | None = None
        self._writer: Any = None

    def add(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Keep a batch, and hand it on."""
        if batch.schema.names != self.schema.names:
            raise InvalidDataError(
                f"the batch has the columns {', '.join(batch.schema.names)}",
                hint=f"wanted: {', '.join(self.schema.names)}",
            )
        batch = batch.cast(self.schema)
        self.rows += batch.num_rows
        self._size += batch.nbytes
        if self._writer is not None:
            self._writer.write_batch(batch)
            return batch
        self._batches.append(batch)
        if self._size > self._limit_bytes:
            self._file = tempfile.TemporaryFile()
            self._writer = pa.ipc.new_stream(self._file, self.schema)
            for kept in self._batches:
                self._writer.write_batch(kept)
            self._batches.clear()
        return batch

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        if self._file is None:
            return iter(self._batches)
        self._writer.close()
        self._file.seek(0)
        return iter(pa.ipc.open_stream(self._file))

    def close(self) -> None:
        """Drop what was kept."""
        self._batches.clear()
        if self._file is not None:
            self._file.close()


def days_of(times: pa.Array) -> pa.Array:
    """The UTC dates of event times; exact for all of them, before 1970 too."""
    return pc.floor_temporal(times, unit="day").cast(pa.date32())


def _condition(start_us: int | None, end_us: int | None) -> ds.Expression | None:
    """Date and time together: the date prunes partitions, the time row groups, then rows."""
    found = None
    for us, low in ((start_us, True), (end_us, False)):
        if us is None:
            continue
        day = pa.scalar((us if low else us - 1) // DAY_US, pa.int32()).cast(pa.date32())
        time = pa.scalar(us, TIMESTAMP)
        if low:
            term = (ds.field(EVENT_DATE) >= day) & (ds.field(EVENT_TS) >= time)
        else:
            term = (ds.field(EVENT_DATE) <= day) & (ds.field(EVENT_TS) < time)
        found = term if found is None else found & term
    return found


def _fragments(
    table: DeltaTable, condition: ds.Expression | None
) -> Iterator[tuple[ds.ParquetFileFragment, pa.Schema]]:
    """The files that may hold such rows, by date, and the table's schema."""
    local = None
    if (url := urlsplit(table.table_uri)).scheme in ("", "file"):
        # A file of a table is never written to again, so it may be mapped.
        local = pafs.SubTreeFileSystem(unquote(url.path), pafs.LocalFileSystem(use_mmap=True))
    dataset = table.to_pyarrow_dataset(filesystem=local)
    for fragment in sorted(dataset.get_fragments(filter=condition), key=lambda f: f.path):
        yield fragment, dataset.schema


def _fragments_of(
    table: DeltaTable, days: Sequence[date], near: ds.Expression
) -> Iterator[tuple[ds.ParquetFileFragment, pa.Schema]]:
    """The files of some dates that may hold such rows; the cost does not grow with the other dates of the table."""
    among = [(EVENT_DATE, "in", [day.isoformat() for day in days])]
    dataset = table.to_pyarrow_dataset(file_pruning_predicate=among)
    for fragment in dataset.get_fragments(filter=near):
        yield fragment, dataset.schema


def _near(times: pa.ChunkedArray) -> ds.Expression:
    """Event times from the smallest to the largest, and a millisecond around them, to which a file's range is told."""
    ends = pc.min_max(times.cast(pa.int64()))
    low, high = ends["min"].as_py() - 1_000, ends["max"].as_py() + 1_000
    return (ds.field(EVENT_TS) >= pa.scalar(low, TIMESTAMP)) & (
        ds.field(EVENT_TS) <= pa.scalar(high, TIMESTAMP)
    )


def conformed(batch: pa.RecordBatch, schema: pa.Schema, rv: RegisteredView) -> pa.RecordBatch:
    """Delta knows no fixed-size lists, and a younger feature has no column yet."""
    types = {**key_types(rv), **feature_types(rv)}
    arrays = []
    for wanted in schema:
        if wanted.name not in batch.schema.names:
            arrays.append(pa.nulls(batch.num_rows, wanted.type))
            continue
        values = batch.column(wanted.name)
        if values.type != wanted.type:
            values = cast_column(values, types[wanted.name], partial(cell, wanted.name))
        arrays.append(values)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
