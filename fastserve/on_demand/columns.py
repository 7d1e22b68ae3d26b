"""Columns on their way into a function and out of it.

| type                       | in                           | out, beside any Arrow array of the type             |
|----------------------------|------------------------------|-----------------------------------------------------|
| bool, int32, int64,        | numpy array [n] of that type | numpy array [n]; numbers of other types where each  |
| float32, float64           |                              | value fits (float64 is rounded to float32)          |
| timestamp                  | datetime64[us] [n], UTC      | datetime64 [n]                                      |
| fixed list of these        | numpy array [n, length]      | numpy array [n, length]                             |
| string, bytes, other lists | Arrow array of n             | numpy array of text                                 |

Null: going in, a row with a null input is left out; or, where the function asks for `valid`, numpy arrays are numpy.ma
arrays, always, whose masks say what is null. Coming out, null is what is masked in a numpy.ma array, NaT, and what is
null in an Arrow array. NaN is a value, and comes out as the one quiet NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.codec.decoded import DecodedColumn
from fastserve.errors import InvalidDataError
from fastserve.offline.cast import cast_column
from fastserve.offline.frames import one_array
from fastserve.types import DType, arrow_type

Bools = npt.NDArray[np.bool_]
Where = Callable[[int], str]

_TIME: Final = np.dtype("datetime64[us]")
_QUIET: Final[dict[int, np.unsignedinteger[Any]]] = {
    4: np.uint32(0x7FC00000),
    8: np.uint64(0x7FF8000000000000),
}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """n values of one type, as the module's table has them.

    Attributes:
        values: a numpy array that may not be written to, or an Arrow array.
        valid: bool[n], False where the value is null; None where none is.
    """

    values: Any
    valid: Bools | None = None

    def masked(self) -> Any:
        """The values, a numpy array with the mask that says which are null, also where none is."""
        if not isinstance(self.values, np.ndarray):
            return self.values
        mask = np.zeros(self.values.shape, np.bool_)
        if self.valid is not None:
            mask[~self.valid] = True
        return np.ma.MaskedArray(self.values, mask=mask)

    def take(self, picks: npt.NDArray[np.intp]) -> Any:
        """Some of the values."""
        return (
            self.values.take(picks, axis=0)
            if isinstance(self.values, np.ndarray)
            else self.values.take(picks)
        )


def of_decoded(column: DecodedColumn) -> Column:
    """A column of online rows; a view of the same memory."""
    valid = None if column.valid.all() else column.valid
    if column.values is None or column.offsets is not None:
        return Column(column.to_arrow(), valid)
    values = column.values.view(_TIME) if column.dtype.item == "timestamp" else column.values.view()
    values.flags.writeable = False
    return Column(values, valid)


def of_arrow(array: pa.Array, dtype: DType) -> Column:
    """An Arrow array of the type."""
    valid: Bools | None = None
    if array.null_count:
        valid = np.asarray(array.is_valid())
    if not dtype.width or (dtype.is_list and not dtype.scalar.width):
        return Column(array, valid)
    if dtype.is_list:
        return Column(_matrix(array, dtype, valid), valid)
    values = _numbers(array if valid is None else array.fill_null(_zero(array.type)), dtype.item)
    values.flags.writeable = False
    return Column(values, valid)


def to_arrow(value: Any, dtype: DType, n: int, where: Where) -> pa.Array:
    """What a function gave for a feature, as `arrow_type(dtype)`.

    Args:
        where: names a row, from 0, in messages; also the feature.

    Raises:
        InvalidDataError: it is no column, of another length, or a value does not fit the type.
    """
    made = _arrow(value, where)
    if len(made) != n:
        raise InvalidDataError(
            f"{len(made)} values for {n} rows", where=where(-1), hint="give one value for each row"
        )
    return cast_column(made, dtype, where)


def _arrow(value: Any, where: Where) -> pa.Array:
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return _one_nan_arrow(one_array(value))
    if not isinstance(value, np.ndarray):
        kind = type(value).__name__
        hint = "give a numpy or Arrow array of as many values as there are rows"
        raise InvalidDataError(f"a {kind} is no column", where=where(-1), hint=hint)
    mask: Bools | None = None
    if isinstance(value, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(value)
        value = value.data
    value = _one_nan(value)
    try:
        if value.ndim == 2:
            lists = pa.FixedSizeListArray.from_arrays(pa.array(value.reshape(-1)), value.shape[1])
            return lists if mask is None else lists.take(_but(np.logical_or.reduce(mask, axis=1)))
        return pa.array(value, mask=mask)
    except (pa.ArrowException, TypeError, ValueError) as error:
        hint = "give a numpy or Arrow array of one type"
        said = str(error).splitlines()[0]
        raise InvalidDataError(f"an array of {value.dtype}: {said}", where=where(-1), hint=hint) from None


def _but(gone: Bools) -> pa.Array:
    """The indices of all, null where they are gone."""
    return pa.array(np.arange(len(gone)), mask=gone)


def _one_nan(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """NaNs differ in bits by processor and operation: here all are one."""
    if values.dtype.kind != "f" or values.dtype.itemsize not in _QUIET:
        return values
    nan = np.isnan(values)
    if not nan.any():
        return values
    quiet = _QUIET[values.dtype.itemsize]
    bits: npt.NDArray[Any] = np.array(values, order="C").view(quiet.dtype)
    bits[nan] = quiet
    return bits.view(values.dtype)


def _one_nan_arrow(values: pa.Array) -> pa.Array:
    if not pa.types.is_floating(values.type) or values.type.bit_width < 32:
        return values
    made = _one_nan(values.fill_null(0.0).to_numpy(zero_copy_only=False))
    return pa.array(made, mask=np.asarray(values.is_null()) if values.null_count else None)


def _zero(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(False if pa.types.is_boolean(kind) else 0, kind)


def _numbers(array: pa.Array, item: str) -> npt.NDArray[Any]:
    if item == "timestamp":
        return array.view(pa.int64()).to_numpy().view(_TIME)  # type: ignore[no-any-return]
    return array.to_numpy(zero_copy_only=item != "bool").view()  # type: ignore[no-any-return]


def _matrix(array: pa.Array, dtype: DType, valid: Bools | None) -> npt.NDArray[Any]:
    """[n, length] of a fixed list; 0 where the list is null."""
    length = dtype.length or 0
    items = array.values.slice(array.offset * length, len(array) * length)
    if items.null_count:  # only inside a list that is null
        items = items.fill_null(_zero(items.type))
    values = _numbers(items, dtype.item).reshape(len(array), length)
    if valid is not None:
        values = np.where(valid[:, None], values, np.zeros(1, values.dtype))
    values.flags.writeable = False
    return values


def nothing(dtype: DType, n: int) -> pa.Array:
    """n nulls of the type."""
    return pa.nulls(n, arrow_type(dtype))
