"""Tables as users hold them -> Arrow: pandas, polars, Arrow, or plain columns. Nothing is converted on the way.

What pandas calls missing is null, a NaN in a column of numpy floats too: just as in the Parquet file that pandas would
write. In lists, numpy arrays, polars and Arrow a NaN is a NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from fastserve.errors import InvalidDataError


def arrow_table(data: Any) -> pa.Table:
    """An Arrow table of what a user hands in.

    Args:
        data: a pandas or polars frame, an Arrow Table, RecordBatch or stream, or a mapping of column name to
            values (list, tuple, numpy array, series, Arrow array), or a list of rows: mappings of column name to
            value, all with the same names.

    Raises:
        InvalidDataError: none of these; a column with values of no one type (names column and row), columns of
            different length, two of one name; rows of different columns.
    """
    if isinstance(data, Mapping):
        return _of_columns(data)
    if isinstance(data, (list, tuple)) and data and all(isinstance(row, Mapping) for row in data):
        return _of_columns(_columns_of(data))
    home = type(data).__module__.partition(".")[0]
    if home == "pandas" and hasattr(data, "columns"):
        return _unique([(name, data.iloc[:, i]) for i, name in enumerate(data.columns)])
    if home == "polars" and hasattr(data, "to_arrow") and hasattr(data, "columns"):
        return data.to_arrow()
    if isinstance(data, pa.RecordBatchReader):
        data = data.read_all()
    if isinstance(data, (pa.Table, pa.RecordBatch)) or hasattr(data, "__arrow_c_stream__"):
        table = pa.table(data)
        return _unique(list(zip(table.column_names, table.columns, strict=True)))
    raise InvalidDataError(
        f"rows come as a pandas or polars frame, an Arrow table, a dict of lists or a list of dicts, not "
        f"{type(data).__name__}",
        hint='{"user_id": [1, 2], "clicks": [3, 4], "event_timestamp": ["2026-01-01T00:00:00Z", …]}',
    )


def one_array(column: Any) -> pa.Array:
    """A column of a table as one array."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    made = column.combine_chunks()
    if isinstance(made, pa.ChunkedArray):
        return made.chunk(0) if made.num_chunks else pa.nulls(0, column.type)
    return made


def _columns_of(rows: Sequence[Mapping[Any, Any]]) -> dict[Any, list[Any]]:
    """What a row leaves out might be meant as null or be a slip: it is not guessed."""
    names = rows[0].keys()
    for i, row in enumerate(rows):
        other = next(iter(row.keys() ^ names), None)
        if other is not None:
            which = "has" if other in row else "lacks"
            raise InvalidDataError(
                f"{which} {other!r}, unlike row 0", where=f"row {i}", hint="give None where a value is null"
            )
    return {name: [row[name] for row in rows] for name in names}


def _of_columns(columns: Mapping[Any, Any]) -> pa.Table:
    first: tuple[str, int] | None = None
    for name, values in columns.items():
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
            raise InvalidDataError(
                f"is a {type(values).__name__}, not a list of values",
                where=f"column {name!r}",
                hint='columns are lists, also of one row: {"user_id": [1]}',
            )
        first = first or (name, len(values))
        if len(values) != first[1]:
            raise InvalidDataError(
                f"has {len(values)} values, column {first[0]!r} has {first[1]}", where=f"column {name!r}"
            )
    return _unique(list(columns.items()))


def _unique(columns: list[tuple[Any, Any]]) -> pa.Table:
    arrays: dict[str, Any] = {}
    for name, values in columns:
        if not isinstance(name, str):
            raise InvalidDataError(f"column names are text, not {name!r}", hint="rename it")
        if name in arrays:
            raise InvalidDataError(f"there are two columns named {name!r}", hint="rename one of them")
        arrays[name] = _array(name, values)
    return pa.table(arrays)


def _array(name: str, values: Any) -> Any:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if type(values).__module__.partition(".")[0] == "polars":
        return values.to_arrow()
    make: Callable[[Any], pa.Array] = pa.array
    if type(values).__module__.partition(".")[0] == "pandas":

        def make(part: Any) -> pa.Array:
            return pa.array(part, from_pandas=True)

    try:
        return make(values)
    except (TypeError, ValueError, OverflowError) as error:  # pyarrow's errors are among them
        raise InvalidDataError(
            f"the values have no one type: {str(error).splitlines()[0]}",
            where=f"column {name!r}, row {first_bad(values, make)}",
            hint="give all values of the column one type, or null",
        ) from None


def first_bad(values: Any, make: Callable[[Any], pa.Array]) -> int:
    """The first row up to which the values do not make an array, by halving."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            make(values[:middle])
            low = middle
        except (TypeError, ValueError, OverflowError):
            high = middle
    return low
