"""Tables as bytes that depend on their values only: not on chunks, threads, what lies under a null, or the clock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastserve.errors import InvalidDataError, RequestError
from materializer.pit.stow import RANGE_ROWS

PART_ROWS: Final = 131_072
"""Rows of a Parquet row group and of a hashed batch; part of the format: other parts are other bytes."""

assert PART_ROWS == RANGE_ROWS  # a training set comes in such batches

_TEXT: Final = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def parts(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows, `PART_ROWS` at a time, in buffers of their own; what lies under a null is zero.

    Tables of PART_ROWS rows, the last of fewer, have the parts that all their rows together would have.
    """
    schema = bare(table.schema)
    for at in range(0, len(table), PART_ROWS):
        part = table.slice(at, PART_ROWS)
        rows = pa.array(np.arange(len(part)))
        columns = [_whole(part.column(i)).take(rows) for i in range(part.num_columns)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    made = column.combine_chunks()
    return made if isinstance(made, pa.Array) else pa.concat_arrays(made.chunks)


def bare(schema: pa.Schema) -> pa.Schema:
    """Names and types, without what frames and files note beside them."""
    return pa.schema([pa.field(field.name, field.type) for field in schema])


def column_hashes(table: pa.Table) -> dict[str, str]:
    """Column -> SHA-256 of its name and type, then of its Arrow IPC messages, in hex."""
    digests = _ColumnDigests(table.schema)
    for part in parts(table):
        digests.add(part)
    return digests.hex()


class _ColumnDigests:
    """What `column_hashes` gives, a part at a time."""

    def __init__(self, schema: pa.Schema) -> None:
        self._digests = {field.name: hashlib.sha256(_header(field)) for field in schema}

    def add(self, part: pa.RecordBatch) -> None:
        for name, digest in self._digests.items():
            digest.update(message(part.column(name), name))

    def hex(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self._digests.items()}


def table_hash(table: pa.Table) -> str:
    """SHA-256 of the columns' names and types, then of their Arrow IPC messages, part by part, in hex."""
    digest = hashlib.sha256(b"".join(_header(field) for field in table.schema))
    for part in parts(table):
        for name in table.column_names:
            digest.update(message(part.column(name), name))
    return digest.hexdigest()


def _header(field: pa.Field) -> bytes:
    return f"{field.name}: {_type_text(field.type)}\n".encode()


def _type_text(kind: pa.DataType) -> str:
    """A type's name; the items of a list are called `item` in one place and `element` in another."""
    if pa.types.is_fixed_size_list(kind):
        return f"list[{kind.list_size}]<{_type_text(kind.value_type)}>"
    return f"list<{_type_text(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


def message(column: pa.Array, name: str) -> memoryview:
    """One column of a part as an Arrow IPC message."""
    return memoryview(pa.record_batch([_without_hidden(column)], [name]).serialize())


def _without_hidden(column: pa.Array) -> pa.Array:
    """Fixed-size lists and structs keep values under their nulls, through `take` too: drop those."""
    if pa.types.is_fixed_size_list(column.type):
        return column.cast(pa.list_(column.type.value_type)).take(pa.array(np.arange(len(column))))
    if pa.types.is_struct(column.type):
        inner = [_without_hidden(part) for part in column.flatten()]
        return pa.StructArray.from_arrays(inner, [f.name for f in column.type], mask=column.is_null())
    return column


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        InvalidDataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidDataError(f"cannot be read: {error.strerror}", where=str(path)) from None


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table."""
    with parquet_writer(path, table.schema) as writer:
        for part in parts(table):
            writer.write_batch(part, row_group_size=PART_ROWS)


def write_hashed(schema: pa.Schema, batches: Iterable[pa.RecordBatch], path: Path) -> dict[str, str]:
    """Write what `write_parquet` would write of a table of these batches, each of PART_ROWS rows, the last of fewer.

    Returns:
        The `column_hashes` of that table.
    """
    digests = _ColumnDigests(schema)
    with parquet_writer(path, schema) as writer:
        for batch in batches:
            for part in parts(pa.Table.from_batches([batch])):
                digests.add(part)
                writer.write_batch(part, row_group_size=PART_ROWS)
    return digests.hex()


def parquet_writer(path: Path, schema: pa.Schema, compression: str = "zstd") -> pq.ParquetWriter:
    """Writes a training set; every setting that shapes the bytes is stated here."""
    schema = bare(schema)
    # Of numbers a dictionary costs more than all else that is written, and a dictionary may take -0.0 for 0.0.
    text = [field.name for field in schema if field.type in _TEXT]
    return pq.ParquetWriter(
        path,
        schema,
        version="2.6",
        compression=compression,
        compression_level=3 if compression == "zstd" else None,
        use_dictionary=text or False,
        write_statistics=True,
        data_page_version="1.0",
        store_schema=True,
    )


def read_parquet(path: Path) -> pa.Table:
    """A table that `write_parquet` wrote.

    Raises:
        InvalidDataError: it is missing or damaged.
    """
    try:
        table = pq.read_table(path, partitioning=None)
        return table.replace_schema_metadata(None)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidDataError(f"cannot be read: {reason}", where=str(path)) from None


def keep_spine(table: pa.Table, path: Path) -> pa.Table:
    """Write the labels, and read back what any later reader will get: that is what the data set is made from.

    Categories and views of text become plain values, and times in seconds become milliseconds; nothing else may
    change on the way.

    Raises:
        RequestError: a column has a type that Parquet cannot hold; names it.
    """
    plain = pa.table({name: _plain(table[name]) for name in table.column_names})
    if not plain.num_columns:
        raise RequestError("has no columns", where="spine", hint="give join keys and a time per label")
    try:
        write_parquet(plain, path)
        kept = read_parquet(path)
        if table_hash(plain.cast(bare(kept.schema))) == table_hash(kept):
            return kept
        reason = "comes back from Parquet as other values"
    except (pa.ArrowException, InvalidDataError) as error:
        reason = f"cannot be kept in Parquet: {str(error).partition(chr(10))[0]}"
    raise RequestError(reason, where=_place(plain, path), hint="cast the column to another type, or drop it")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if kind == pa.string_view():
        return column.cast(pa.string())
    return column.cast(pa.binary()) if kind == pa.binary_view() else column


def _place(table: pa.Table, path: Path) -> str:
    """The first column that cannot be kept by itself."""
    for name in table.column_names:
        one: Any = table.select([name])
        try:
            write_parquet(one, path)
            kept = read_parquet(path)
            if table_hash(one.cast(bare(kept.schema))) == table_hash(kept):
                continue
        except (pa.ArrowException, InvalidDataError):
            pass
        return f"spine, column {name!r} of type {table[name].type}"
    return "spine"
