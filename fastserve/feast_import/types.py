"""Feast's types, by the text it prints for them, and what they are here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa

SCALARS: Final = {
    "Bool": "bool",
    "Int32": "int32",
    "Int64": "int64",
    "Float32": "float32",
    "Float64": "float64",
    "String": "string",
    "Bytes": "bytes",
    "UnixTimestamp": "timestamp",
    "Json": "string",
    "Uuid": "string",
    "TimeUuid": "string",
    "ImageBytes": "bytes",
    "PdfBytes": "bytes",
}
KEYS: Final = {
    "Bool": "bool",
    "Int32": "int64",
    "Int64": "int64",
    "String": "string",
    "Bytes": "bytes",
    "Uuid": "string",
}
VALUE_TYPES: Final = {
    "BOOL": "bool",
    "INT32": "int64",
    "INT64": "int64",
    "STRING": "string",
    "BYTES": "bytes",
    "UUID": "string",
}
"""Names of feast.ValueType, as entities declare it -> key type."""

_ARRAY: Final = re.compile(r"Array\((\w+)\)")
_WHY: Final = {
    "Map": "maps are no type here; write the entries that models read as fields of their own",
    "Struct": "structs are no type here; write the members that models read as fields of their own",
    "ScalarMap": "maps are no type here; write the entries that models read as fields of their own",
    "Set": "sets are no type here; declare Array in Feast, or list<…> here, where the source holds a list",
    "Decimal": "decimals are no type here; declare float64, or a string, for such a column",
    "ZonedTimestamp": "instants are kept in UTC; declare a timestamp, and the zone as a string",
}
_CHANGED: Final = {
    "Json": "is text here: the JSON is served as it stands in the source",
    "Uuid": "is text here: UUIDs are served as strings, as Feast's server does",
    "TimeUuid": "is text here: UUIDs are served as strings, as Feast's server does",
    "ImageBytes": "is bytes here",
    "PdfBytes": "is bytes here",
}


def field_type(feast: str) -> str | None:
    """The type of a field that Feast calls `feast`; None where there is none."""
    array = _ARRAY.fullmatch(feast)
    if array:
        return f"list<{SCALARS[array[1]]}>" if array[1] in SCALARS else None
    return SCALARS.get(feast)


def why_not(feast: str) -> str:
    """Why there is none, and what to do."""
    if feast.startswith("Array("):
        return "only lists of scalars are types here"
    head = re.split(r"\W", feast, maxsplit=1)[0]
    return _WHY.get(head, "it has no counterpart here")


def change_of(feast: str) -> str:
    """What is different about a type that is carried over; '' where nothing is."""
    array = _ARRAY.fullmatch(feast)
    return _CHANGED.get(array[1] if array else feast, "")


def arrow_name(kind: pa.DataType) -> str:
    """What Feast would call a column that it finds in a file, without a declared schema."""
    import pyarrow as pa  # noqa: PLC0415

    is_ = pa.types
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        return f"Array({arrow_name(kind.value_type)})"
    tests = (
        (is_.is_boolean, "Bool"),
        (is_.is_int32, "Int32"),
        (is_.is_integer, "Int64"),
        (is_.is_float32, "Float32"),
        (is_.is_floating, "Float64"),
        (is_.is_timestamp, "UnixTimestamp"),
        (is_.is_string, "String"),
        (is_.is_large_string, "String"),
        (is_.is_binary, "Bytes"),
        (is_.is_large_binary, "Bytes"),
        (is_.is_map, "Map"),
        (is_.is_struct, "Struct"),
        (is_.is_decimal, "Decimal"),
    )
    return next((name for test, name in tests if test(kind)), str(kind))
