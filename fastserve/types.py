"""The one table of data types: what a declared type is in Arrow, numpy, the row codec and JSON.

Scalars (SCALARS below) and lists of scalars: variable, ``Array(Float32)``, or of a fixed length,
``Array(Float32, 128)`` for embeddings. Lists hold no null items; a list as a whole may be null.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Scalar:
    """One line of the table.

    Attributes:
        code: the kind number of the row codec (docs/row-format.md).
        width: bytes in the row's fixed section; 0 for types kept in the heap.
        numpy: numpy dtype string of a decoded column ('' for heap types).
        arrow: pyarrow factory name and its arguments.
        json: the JSON form, in words.
    """

    code: int
    width: int
    numpy: str
    arrow: tuple[str, ...]
    json: str


SCALARS: Final[dict[str, Scalar]] = {
    "bool": Scalar(1, 1, "?", ("bool_",), "true | false"),
    "int32": Scalar(2, 4, "<i4", ("int32",), "number"),
    "int64": Scalar(3, 8, "<i8", ("int64",), "number"),
    "float32": Scalar(4, 4, "<f4", ("float32",), 'number, "NaN", "Infinity" or "-Infinity"'),
    "float64": Scalar(5, 8, "<f8", ("float64",), 'number, "NaN", "Infinity" or "-Infinity"'),
    "timestamp": Scalar(6, 8, "<i8", ("timestamp", "us", "UTC"), "RFC 3339 string, UTC, microseconds"),
    "string": Scalar(7, 0, "", ("string",), "string"),
    "bytes": Scalar(8, 0, "", ("binary",), "base64 string"),
}

KEY_TYPES: Final = ("string", "int64", "bool", "bytes")
"""Types a join key may have; any integer width names the same int64 key."""

MAX_LIST_LENGTH: Final = 65_536
_LIST = re.compile(r"list<(\w+)>(?:\[(\d+)\])?")


@dataclass(frozen=True, slots=True)
class DType:
    """A declared type: a scalar, or a list of scalars.

    Attributes:
        item: name of the scalar (of the items, for a list).
        is_list: whether this is a list.
        length: the fixed length of a list, or None for a variable one.
    """

    item: str
    is_list: bool = False
    length: int | None = None

    def __str__(self) -> str:
        if not self.is_list:
            return self.item
        return f"list<{self.item}>" + (f"[{self.length}]" if self.length is not None else "")

    @property
    def scalar(self) -> Scalar:
        """The table's line for the (item) type."""
        return SCALARS[self.item]

    @property
    def width(self) -> int:
        """Bytes in the row's fixed section; 0 when the value lives in the heap."""
        if not self.is_list:
            return self.scalar.width
        return self.scalar.width * self.length if self.length is not None else 0


Bool: Final = DType("bool")
Int32: Final = DType("int32")
Int64: Final = DType("int64")
Float32: Final = DType("float32")
Float64: Final = DType("float64")
Timestamp: Final = DType("timestamp")
String: Final = DType("string")
Bytes: Final = DType("bytes")


def Array(item: DType | str, length: int | None = None) -> DType:
    """A list type: ``Array(String)``, or with a fixed length, ``Array(Float32, 128)``.

    Raises:
        ValueError: for a list of lists or a length outside 1..65,536.
    """
    inner = parse_dtype(item)
    if inner.is_list:
        raise ValueError(f"a list of lists is not a type: Array({inner})")
    if length is not None and not 1 <= length <= MAX_LIST_LENGTH:
        raise ValueError(f"the length of a fixed list is 1..{MAX_LIST_LENGTH:,}, not {length}")
    return DType(inner.item, True, length)


def parse_dtype(text: DType | str) -> DType:
    """The type named by ``int64``, ``list<float32>`` or ``list<float32>[128]``.

    Raises:
        ValueError: when the text names no type; the message lists the names.
    """
    if isinstance(text, DType):
        return text
    if text in SCALARS:
        return DType(text)
    match = _LIST.fullmatch(text)
    if match and match[1] in SCALARS:
        return Array(DType(match[1]), int(match[2]) if match[2] else None)
    raise ValueError(
        f"unknown type {text!r}; a type is one of {', '.join(SCALARS)}, list<item> or list<item>[n]"
    )


def arrow_type(dtype: DType) -> pa.DataType:
    """The Arrow type of a column of this declared type."""
    import pyarrow as pa  # noqa: PLC0415  (definitions must load without Arrow)

    factory, *args = dtype.scalar.arrow
    item = getattr(pa, factory)(*args)
    if not dtype.is_list:
        return item
    return pa.list_(item) if dtype.length is None else pa.list_(item, dtype.length)
