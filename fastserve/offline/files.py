"""The files of a source: which ones, in which order, and their columns batch by batch.

A reader gives runs of rows, which may be read again and again. The place of the file in the sorted list, then that
of the row in its file, is the "position in the source": the last tie-break between rows.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.ipc
import pyarrow.parquet as pq
from pyarrow import types as is_

from fastserve.definitions import BatchSource, FileInput, FileSource
from fastserve.errors import InvalidDataError

Files: TypeAlias = FileSource | FileInput
Batches = Iterator[pa.RecordBatch]
CSV_NULLS: Final = ("", "NA", "N/A", "NULL", "null")
"""Text that is null in CSV; in a column of strings or bytes only an empty unquoted field is."""
_CSV_BLOCK_BYTES: Final = 1 << 22
RUN_BYTES: Final = 1 << 25
_HASH_BYTES: Final = 1 << 20
_NEAR_BYTES: Final = 1 << 18
"""Of a column of a local file, read at a time. To read all columns ahead is for stores that are far away."""
_DECODED_BYTES: Final = 1 << 24
_NEAR: Final = ds.ParquetFragmentScanOptions(
    pre_buffer=False, use_buffered_stream=True, buffer_size=_NEAR_BYTES
)


@dataclass(frozen=True, slots=True)
class Run:
    """Rows that follow one another in a file.

    Attributes:
        first_row: the place of the first within the file.
        n_rows: how many; 0 where that is known only once they are read.
        read: (columns, rows of a batch at most, whether Arrow may use its threads) -> the rows in file order.
    """

    first_row: int
    n_rows: int
    read: Callable[[Sequence[str], int, bool], Batches]


class FileReader(Protocol):
    """One open file: its columns, and their values."""

    schema: pa.Schema

    def runs(self, prune: ds.Expression | None) -> list[Run]:
        """All rows in file order; parts that cannot match `prune` may be left out."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a source.

    Attributes:
        path: as messages name it.
        reader: its content.
        partition: columns held by the path, ``…/day=2024-01-01/…``, as text.
        changed: whether somebody wrote to it since it was listed.
    """

    path: str
    reader: FileReader
    partition: dict[str, str] = field(default_factory=dict)
    changed: Callable[[], bool] = bool


def open_files(
    source: Files, repo: Path, *, only: Collection[str] | None = None, version: int | None = None
) -> Iterator[DataFile]:
    """The source's files by ascending path, each opened when its turn comes.

    Args:
        only: no other files than these, as `list_files` names them; None for all.
        version: of a source that is a Delta table; None for its newest.

    Raises:
        InvalidDataError: nothing there, an empty directory, or a file that is not of the format.
    """
    if source.format == "delta":
        yield from _delta_files(source, repo, version)
        return
    with reading(source, source.path):
        filesystem, root, found = _list(source, repo)
    for path, info in ((info.path, info) for info in found):
        if only is not None and _shown(source, root, path) not in only:
            continue
        with reading(source, path):
            reader = _READERS[source.format](filesystem, path)
        changed = partial(_changed, filesystem, path, _state(info))
        yield DataFile(path, reader, _hive(path[len(root) :]), changed)


def _changed(filesystem: pa.fs.FileSystem, path: str, before: tuple[bool, int, int | None]) -> bool:
    return _state(filesystem.get_file_info(path)) != before


def _state(info: pa.fs.FileInfo) -> tuple[bool, int, int | None]:
    """What changes when somebody writes to a file: unlike a FileInfo it can be sent to another process."""
    return info.is_file, info.size, info.mtime_ns


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a source as it stands: what changes when somebody writes to it.

    Attributes:
        path: below the source's declared path, e.g. ``data/day=2024-01-01/a.parquet`` of the source ``data/``.
        mtime_ns: when it was last written; None where the file system does not say.
    """

    path: str
    size: int
    mtime_ns: int | None
    filesystem: pa.fs.FileSystem = field(repr=False, compare=False)
    opened_as: str = field(default="", repr=False, compare=False)

    def sha256(self) -> str:
        """Of the file's bytes, in hex."""
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.opened_as, compression=None) as stream:
            while chunk := stream.read(_HASH_BYTES):
                digest.update(chunk)
        return digest.hexdigest()


def list_files(source: Files, repo: Path) -> list[ListedFile]:
    """The files of a source that is no Delta table, by ascending path.

    Raises:
        InvalidDataError: nothing there, or an empty directory.
    """
    with reading(source, source.path):
        filesystem, root, found = _list(source, repo)
    return [
        ListedFile(_shown(source, root, i.path), int(i.size), i.mtime_ns, filesystem, i.path) for i in found
    ]


def source_paths(
    source: Files, repo: Path, only: Collection[str] | None
) -> tuple[pa.fs.FileSystem, str, list[str]]:
    """The file system, the root below which names of directories hold columns, and the files by ascending path.

    Raises:
        InvalidDataError: nothing there, or an empty directory.
    """
    filesystem, root, found = _list(source, repo)
    paths = [info.path for info in found]
    return filesystem, root, [p for p in paths if only is None or _shown(source, root, p) in only]


def path_columns(root: str, paths: Sequence[str]) -> list[str]:
    """The columns that the files' paths hold, ``…/day=2024-01-01/…``."""
    return list(dict.fromkeys(name for path in paths for name in _hive(path[len(root) :])))


def _shown(source: Files, root: str, path: str) -> str:
    below = path[len(root) :].strip("/")
    return f"{source.path.rstrip('/')}/{below}" if below else source.path


@contextmanager
def reading(source: BatchSource | FileInput, path: str) -> Iterator[None]:
    """Turn what Arrow and the file system raise into InvalidDataError naming source and file."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (pa.ArrowException, OSError)) and not _is_delta(error):
            raise
        raise InvalidDataError(
            f"cannot be read as {source.format}: {error}",
            where=f"source {source.name!r}, file {path!r}",
            hint=f"check the path and format={source.format!r} of {type(source).__name__}({source.name!r})",
        ) from error


def _is_delta(error: Exception) -> bool:
    """Whether Delta raised it, which is loaded then, and not before."""
    module = sys.modules.get("deltalake.exceptions")
    return module is not None and isinstance(error, module.DeltaError)


def _list(source: Files, repo: Path) -> tuple[pa.fs.FileSystem, str, list[pa.fs.FileInfo]]:
    if "://" in source.path:
        filesystem, root = pa.fs.FileSystem.from_uri(source.path)
    else:
        filesystem, root = pa.fs.LocalFileSystem(), str(repo / source.path)
    info = filesystem.get_file_info(root)
    if info.type == pa.fs.FileType.File:
        return filesystem, root, [info]
    where = f"source {source.name!r}"
    if info.type != pa.fs.FileType.Directory:
        raise InvalidDataError(
            f"there is no file or directory {root!r}",
            where=where,
            hint="relative paths are relative to the repo directory",
        )
    found = filesystem.get_file_info(pa.fs.FileSelector(root, recursive=True))
    files = [i for i in found if i.type == pa.fs.FileType.File and not _hidden(i.path, root)]
    if not files:
        raise InvalidDataError(
            f"the directory {root!r} has no files",
            where=where,
            hint="write the source first; names that start with _ or . do not count",
        )
    return filesystem, root, sorted(files, key=lambda i: str(i.path))


def _hidden(path: str, root: str) -> bool:
    return any(part.startswith(("_", ".")) for part in path[len(root) :].strip("/").split("/"))


def _hive(relative: str) -> dict[str, str]:
    parts = (part.partition("=") for part in relative.split("/")[:-1])
    return {unquote(name): unquote(value) for name, eq, value in parts if eq}


class ParquetReader:
    """A Parquet file, or one file of a Delta table; row groups that cannot match are skipped."""

    def __init__(self, fragment: ds.ParquetFileFragment, schema: pa.Schema | None = None) -> None:
        self._fragment = fragment
        self.schema = fragment.physical_schema if schema is None else schema

    @classmethod
    def open(cls, filesystem: pa.fs.FileSystem, path: str) -> ParquetReader:
        return cls(ds.ParquetFileFormat().make_fragment(path, filesystem))

    @property
    def metadata(self) -> pq.FileMetaData:
        """The file's footer."""
        return self._fragment.metadata

    def runs(self, prune: ds.Expression | None) -> list[Run]:
        metadata = self._fragment.metadata
        first_rows = [0, *accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))]
        return [
            Run(first_rows[run[0]], first_rows[run[-1] + 1] - first_rows[run[0]], partial(self._read, run))
            for run in runs_of(self._fragment, prune, self.schema)
        ]

    def _read(self, run: list[int], columns: Sequence[str], batch_rows: int, threads: bool) -> Batches:
        if not threads and self._is_plain(columns):
            yield from self._decoded(run, list(columns), batch_rows)
            return
        part = self._fragment.subset(row_group_ids=run)
        yield from part.to_batches(
            schema=self.schema,
            columns=list(columns),
            batch_size=batch_rows,
            batch_readahead=4 if threads else 0,
            use_threads=threads,
            fragment_scan_options=_NEAR if _is_near(part.filesystem) else None,
        )

    def _is_plain(self, columns: Sequence[str]) -> bool:
        """Whether these columns of a local file are as they are wanted: no other type, and none that is not there."""
        if not columns or not _is_near(self._fragment.filesystem):
            return False
        stored = self._fragment.physical_schema
        return all(
            stored.names.count(name) == 1 and stored.field(name).type == self.schema.field(name).type
            for name in columns
        )

    def _decoded(self, run: list[int], columns: list[str], batch_rows: int) -> Batches:
        """By this thread alone: a scan has others do it, and to wait for them takes as long as to decode some rows."""
        with (
            self._fragment.open() as opened,
            pq.ParquetFile(opened, metadata=self.metadata, buffer_size=_NEAR_BYTES) as file,
        ):
            rows = max(batch_rows, _decoded_rows([self.schema.field(name).type for name in columns]))
            for batch in file.iter_batches(rows, row_groups=run, columns=columns, use_threads=False):
                yield from _sliced(batch.select(columns), batch_rows)


def _decoded_rows(kinds: Sequence[pa.DataType]) -> int:
    """Rows that are decoded at a time, if all values are of one width: to go from column to column takes long too."""
    if not all(is_.is_primitive(kind) for kind in kinds):
        return 0
    bits: int = sum(kind.bit_width for kind in kinds)
    return 8 * _DECODED_BYTES // bits


def _is_near(filesystem: pa.fs.FileSystem) -> bool:
    while isinstance(filesystem, pa.fs.SubTreeFileSystem):
        filesystem = filesystem.base_fs
    return isinstance(filesystem, pa.fs.LocalFileSystem)


def runs_of(
    fragment: ds.ParquetFileFragment, prune: ds.Expression | None, schema: pa.Schema
) -> list[list[int]]:
    """The row groups of a Parquet file as runs, without those that cannot match `prune`."""
    groups = [fragment.metadata.row_group(i) for i in range(fragment.metadata.num_row_groups)]
    kept = list(range(len(groups)))
    if prune is not None:
        kept = [group.id for group in fragment.subset(prune, schema=schema).row_groups]
    return _runs(kept, [group.total_byte_size for group in groups])


def _runs(numbers: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Ascending numbers of row groups as runs of neighbours: rows of a run follow one another in the file.

    A run is up to RUN_BYTES or one row group: Arrow keeps what it read of a scan until the scan ends, and would
    keep the whole file.
    """
    runs: list[list[int]] = []
    n_bytes = 0
    for number in numbers:
        n_bytes += sizes[number]
        if not runs or number != runs[-1][-1] + 1 or n_bytes > RUN_BYTES:
            runs.append([])
            n_bytes = sizes[number]
        runs[-1].append(number)
    return runs


class _Csv:
    """A CSV file with a header; every column is read as text, an empty unquoted field as null."""

    def __init__(self, filesystem: pa.fs.FileSystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path
        with self._open(pa.csv.ConvertOptions()) as reader:
            self.schema = pa.schema([(name, pa.string()) for name in reader.schema.names])

    def _open(self, convert: pa.csv.ConvertOptions) -> pa.csv.CSVStreamingReader:
        return pa.csv.open_csv(
            self._filesystem.open_input_stream(self._path),
            read_options=pa.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=convert,
        )

    def runs(self, prune: ds.Expression | None) -> list[Run]:
        return [Run(0, 0, self._read)]

    def _read(self, columns: Sequence[str], batch_rows: int, threads: bool) -> Batches:
        convert = pa.csv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: pa.string() for name in columns},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        with self._open(convert) as reader:
            for batch in reader:
                yield from _sliced(batch, batch_rows)


class _Arrow:
    """An Arrow IPC file (Feather) or stream."""

    def __init__(self, filesystem: pa.fs.FileSystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self._memory_map = isinstance(filesystem, pa.fs.LocalFileSystem)
        self.schema = self._open(pa.ipc.IpcReadOptions()).schema

    def _open(self, options: pa.ipc.IpcReadOptions) -> Any:
        file = pa.memory_map(self._path) if self._memory_map else self._filesystem.open_input_file(self._path)
        try:
            return pa.ipc.open_file(file, options=options)
        except pa.ArrowInvalid:
            file.seek(0)
            return pa.ipc.open_stream(file, options=options)

    def runs(self, prune: ds.Expression | None) -> list[Run]:
        return [Run(0, 0, self._read)]

    def _read(self, columns: Sequence[str], batch_rows: int, threads: bool) -> Batches:
        indices = [self.schema.get_field_index(name) for name in columns]
        reader = self._open(pa.ipc.IpcReadOptions(included_fields=indices))
        is_file = isinstance(reader, pa.ipc.RecordBatchFileReader)
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
            yield from _sliced(batch.select(list(columns)), batch_rows)


def _sliced(batch: pa.RecordBatch, batch_rows: int) -> Batches:
    for at in range(0, batch.num_rows, batch_rows):
        yield batch.slice(at, batch_rows)


_READERS: Final[dict[str, Any]] = {"parquet": ParquetReader.open, "csv": _Csv, "arrow": _Arrow}


def delta_uri(source: Files, repo: Path) -> str:
    """Where the Delta table is that a source reads."""
    return source.path if "://" in source.path else str(repo / source.path)


def _delta_files(source: Files, repo: Path, version: int | None) -> Iterator[DataFile]:
    from deltalake import DeltaTable  # noqa: PLC0415  (few sources are Delta tables, and it takes a while)
    from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415

    root = delta_uri(source, repo)
    try:
        with reading(source, root):
            dataset = DeltaTable(root, version=version).to_pyarrow_dataset()
    except InvalidDataError as error:
        if isinstance(error.__cause__, TableNotFoundError):
            raise InvalidDataError(
                f"there is no Delta table {root!r}",
                where=f"source {source.name!r}",
                hint="relative paths are relative to the repo directory",
            ) from error
        raise
    for fragment in sorted(dataset.get_fragments(), key=lambda f: f.path):
        yield DataFile(fragment.path, ParquetReader(fragment, dataset.schema))
