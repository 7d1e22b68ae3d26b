"""The spine: the labels a training set is built for. Whatever it comes as, nothing of it is altered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.errors import InvalidDataError, InvalidEntityError, RequestError, guess
from fastserve.offline.cast import cast_column
from fastserve.types import Timestamp
from materializer.pit.factorize import canonical_key

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spine:
    """Labels as Arrow, and the frame they came as.

    Attributes:
        table: the columns, bit for bit; a null is a null, a NaN in a column of floats stays NaN.
        frame: a pandas frame without its index, or a polars frame; None for other input.
    """

    table: pa.Table
    frame: Any = None


def to_spine(obj: Any) -> Spine:
    """Labels from a pandas or polars frame, or from Arrow: Table, RecordBatch, reader, or any Arrow stream.

    Raises:
        RequestError: it is none of these, or a column has no Arrow type; names the column.
    """
    if isinstance(obj, Spine):
        return obj
    home = type(obj).__module__.partition(".")[0]
    if home == "pandas" and hasattr(obj, "columns"):
        return _from_pandas(obj)
    if home == "polars" and hasattr(obj, "to_arrow") and hasattr(obj, "columns"):
        return _checked(Spine(obj.to_arrow(), obj))
    if isinstance(obj, pa.Table):
        return _checked(Spine(obj))
    if isinstance(obj, pa.RecordBatchReader):
        return _checked(Spine(obj.read_all()))
    if isinstance(obj, pa.RecordBatch) or hasattr(obj, "__arrow_c_stream__"):
        return _checked(Spine(pa.table(obj)))
    raise RequestError(
        f"labels come as a pandas or polars frame or an Arrow table, not {type(obj).__name__}",
        where="spine",
        hint="call .collect() on a lazy frame, or pass pyarrow.table(...)",
    )


def _from_pandas(obj: Any) -> Spine:
    frame = obj.reset_index(drop=True)  # also a copy: later changes to the caller's frame do not reach us
    arrays, names = [], []
    for position, name in enumerate(frame.columns):
        if not isinstance(name, str):
            raise RequestError(f"column names are text, not {name!r}", where="spine", hint="rename it")
        series = frame.iloc[:, position]
        # numpy floats: NaN is a value there. In all other columns pandas' missing values are nulls.
        missing_is_null = getattr(series.dtype, "kind", "O") != "f" or not isinstance(series.dtype, np.dtype)
        try:
            arrays.append(
                pa.array(series if missing_is_null else series.to_numpy(), from_pandas=missing_is_null)
            )
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise RequestError(
                f"has no one type: {error}",
                where=f"spine, column {name!r}",
                hint="give all its values one type, or drop it",
            ) from error
        names.append(name)
    return _checked(Spine(pa.Table.from_arrays(arrays, names=names), frame))


def _checked(spine: Spine) -> Spine:
    names = spine.table.column_names
    for name in names:
        if names.count(name) > 1:
            raise RequestError(f"has two columns named {name!r}", where="spine", hint="rename one of them")
    return spine


def label_times(table: pa.Table, column: str) -> Ints:
    """The time each label asks for, microseconds UTC, [n].

    Raises:
        RequestError: there is no such column.
        InvalidDataError: it holds no times, a null, or a time that is no whole microsecond; names the row.
    """
    if column not in table.column_names:
        raise RequestError(
            f"the spine has no column {column!r} with the labels' times",
            where="spine",
            hint=_guess(column, table.column_names) + "name another by timestamp_column=",
        )

    def where(i: int) -> str:
        return f"spine, column {column!r}, row {i}"

    values = table[column].combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks else pa.nulls(0, table[column].type)
    made = cast_column(values, Timestamp, where)
    if made.null_count:
        raise InvalidDataError(
            "the label's time is null",
            where=where(made.is_null().index(True).as_py()),
            hint="a label without a time cannot be joined; drop it or give it one",
        )
    return made.cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def label_keys(table: pa.Table, rv: RegisteredView, join_key_map: Mapping[str, str]) -> dict[str, pa.Array]:
    """Join key of the view -> the labels' values in canonical form, [n]; a null matches nothing.

    Raises:
        InvalidEntityError: a column is missing or of another type.
    """
    keys = {}
    for name, key_type in rv.join_keys.items():
        column = join_key_map.get(name, name)
        if column not in table.column_names:
            raise InvalidEntityError(
                f"the spine has no column {column!r}, "
                f"{'' if column == name else f'mapped to {name!r}, '}a join key of view {rv.view.name!r}",
                where="spine",
                hint=_guess(column, table.column_names)
                + f"or name another: view.with_join_key_map({{{name!r}: column}})",
            )
        try:
            keys[name] = canonical_key(table[column], key_type)
        except TypeError as error:
            raise InvalidEntityError(
                f"{error} in view {rv.view.name!r}",
                where=f"spine, column {column!r}",
                hint=_key_hint(table[column].type, key_type),
            ) from None
    return keys


def _guess(column: str, names: Sequence[str]) -> str:
    return f"{guess(column, names)}its columns: {', '.join(names) or 'none'}; "


def _key_hint(kind: pa.DataType, key_type: str) -> str:
    if pa.types.is_floating(kind) and key_type == "int64":
        return "pandas turns integers with gaps into floats: use astype('Int64')"
    return f"cast the column to {key_type}; values are compared as they are, never converted"
