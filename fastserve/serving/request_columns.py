"""Request columns that on-demand views read: lists of values as they come -> columns of their declared types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa

from fastserve.errors import InvalidDataError, InvalidEntityError
from fastserve.offline.cast import Where, cast_column
from fastserve.offline.frames import first_bad, one_array
from fastserve.on_demand.columns import Column, of_arrow
from fastserve.serving.plan import ReadPlan
from fastserve.types import DType, arrow_type, parse_dtype

_FLOATS: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def request_columns(plan: ReadPlan, entities: Mapping[str, Sequence[Any]]) -> dict[str, Column]:
    """The plan's request columns; null where None was given.

    Floats may be given by name, ``"NaN"``, as answers give them; times as text; otherwise as `cast_column` takes them.

    Raises:
        InvalidEntityError: a value does not fit its column's type; `where` names it.
    """
    types = {name: parse_dtype(text) for name, text in plan.request_columns.items()}
    return {name: of_arrow(values, types[name]) for name, values in request_arrays(plan, entities).items()}


def request_arrays(plan: ReadPlan, entities: Mapping[str, Sequence[Any]]) -> dict[str, pa.Array]:
    """The same as Arrow arrays of the declared types.

    Raises:
        InvalidEntityError: as `request_columns`.
    """
    found = {}
    for name, text in plan.request_columns.items():
        dtype, place = parse_dtype(text), partial(_place, name)
        try:
            found[name] = cast_column(_array(entities[name], dtype, place), dtype, place)
        except InvalidDataError as error:
            raise InvalidEntityError(error.message, where=error.where, hint=f"{name} is {text}") from None
    return found


def _array(values: Any, dtype: DType, place: Where) -> pa.Array:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return one_array(values)
    is_float = dtype.item in ("float32", "float64")
    try:
        made = pa.array(values)
        if pa.types.is_null(made.type):
            return pa.nulls(len(made), arrow_type(dtype))
        if not (is_float and _has_text(made.type)):
            return made
    except (TypeError, ValueError, OverflowError):  # pyarrow's errors are among them
        pass
    return _of_one_type([_named(value) for value in values] if is_float else values, place)


def _of_one_type(values: Sequence[Any], place: Where) -> pa.Array:
    try:
        return pa.array(values)
    except (TypeError, ValueError, OverflowError) as error:
        said = str(error).splitlines()[0]
        raise InvalidDataError(
            f"the values have no one type: {said}", where=place(first_bad(values, pa.array))
        ) from None


def _has_text(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind))


def _named(value: Any) -> Any:
    if isinstance(value, str):
        return _FLOATS.get(value, value)
    return [_named(item) for item in value] if isinstance(value, list) else value


def _place(name: str, i: int) -> str:
    return f"$.entities.{name}[{i}]"
