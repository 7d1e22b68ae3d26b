"""Online keys: ``<view id>:<join key values>``. The readable twin of _ext/keys.pyx.

view 7, no join keys                      b"7:"
view 46, user_id = 1042                   b"1a:1042"
view 7, country = "a|b", user_id = -1     b"7:a%7Cb|-1"
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import numpy as np
import pyarrow as pa

from fastserve.batch.batch_py import ReadBatch
from fastserve.errors import CodecError, InvalidEntityError
from fastserve.types import KEY_TYPES

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_STRING_ESCAPES: Final = re.compile(rb"[\x00-\x1f\x7f%|]")
_BYTES_ESCAPES: Final = re.compile(rb"[^\x21-\x7e]|[%|]")
_ESCAPED: Final = re.compile(rb"%([0-9A-F]{2})")
_HINTS: Final = {
    "int64": 'send a whole number, 7 rather than "7" or 7.0',
    "string": 'send text, "7" rather than 7',
    "bool": "send true or false",
    "bytes": "send bytes",
}


def base36(number: int) -> str:
    """A view id as it stands in front of a key: 46 -> ``1a``."""
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if not number:
            return text


class KeyEncoder:
    """Encodes the keys of one view version, a batch at a time.

    Args:
        view_id: the number the registry gave the view version.
        key_types: one of types.KEY_TYPES per join key, in the order of the sorted join key names.

    Attributes:
        prefix: what every key of the view starts with, ``b"1a:"``; pass it to a store's scan.
    """

    def __init__(self, view_id: int, key_types: Sequence[str]) -> None:
        self.view_id = view_id
        self.key_types = check_types(view_id, key_types)
        self.prefix = base36(view_id).encode() + b":"

    def encode(self, columns: Sequence[object], n: int, names: Sequence[str] | None = None) -> list[bytes]:
        """The keys of n entities.

        Args:
            columns: one per join key, in canonical order, n values each: a list or tuple, a numpy
                array, a pyarrow Array or ChunkedArray, a pandas or polars Series.
            n: how many entities; without join keys, the view's one key is repeated n times.
            names: join key names, for error messages: ``$.entities.<name>[<i>]``, not ``[<i>]``.

        Raises:
            InvalidEntityError: for a null, a value of another type (also a float or text for an
                int64), an integer outside int64, text that is not Unicode, or a column of another
                length.
        """
        lists = check_columns(self.key_types, columns, n, names)
        if not lists:
            return [self.prefix] * n
        keys = []
        for i, row in enumerate(zip(*lists, strict=True)):
            parts = [key_text(row[c], kind, names, c, i) for c, kind in enumerate(self.key_types)]
            keys.append(self.prefix + b"|".join(parts))
        return keys

    def encode_into(
        self, batch: ReadBatch, columns: Sequence[object], n: int, names: Sequence[str] | None = None
    ) -> None:
        """Append the keys of n entities to a batch; arguments and errors as `encode`.

        After an error part of them may be there: throw the batch away.
        """
        for key in self.encode(columns, n, names):
            batch.add(key)

    def decode(self, key: bytes) -> tuple[object, ...]:
        """The join key values of a key, in canonical order; for people, not for the hot path.

        Raises:
            CodecError: when the bytes are not a key of this view.
        """
        return decode_key(self.prefix, self.key_types, key)


def check_types(view_id: int, key_types: Sequence[str]) -> tuple[str, ...]:
    """The key types as a tuple.

    Raises:
        CodecError: for a negative view id or a type that is no key type.
    """
    if view_id < 0:
        raise CodecError(f"a view id is not negative: {view_id}")
    for key_type in key_types:
        if key_type not in KEY_TYPES:
            raise CodecError(f"{key_type!r} is no key type", hint=f"one of {', '.join(KEY_TYPES)}")
    return tuple(key_types)


def key_text(value: Any, key_type: str, names: Sequence[str] | None, column: int, i: int) -> bytes:
    """One value as it stands in a key; the table of docs/row-format.md."""
    if key_type == "string" and isinstance(value, str):
        try:
            return _STRING_ESCAPES.sub(_percent, value.encode())
        except UnicodeEncodeError:
            reject(value, key_type, names, column, i)
    if key_type == "bytes" and isinstance(value, (bytes, bytearray)):
        return _BYTES_ESCAPES.sub(_percent, bytes(value))
    if key_type == "bool" and isinstance(value, (bool, np.bool_)):
        return b"t" if value else b"f"
    if key_type == "int64" and not isinstance(value, bool) and hasattr(value, "__index__"):
        number = _index(value)
        if number is not None and INT64_MIN <= number <= INT64_MAX:
            return b"%d" % number
    reject(value, key_type, names, column, i)


def _index(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:  # numpy's bool and its arrays have the method and refuse
        return None


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def place(names: Sequence[str] | None, column: int, i: int | None = None) -> str:
    """The JSON path of a value: ``$.entities.user_id[3]``, or ``[3]`` without names."""
    path = f"$.entities.{names[column]}" if names is not None else ""
    if i is None:
        return path or f"join key {column}"
    return f"{path}[{i}]"


def reject(value: object, key_type: str, names: Sequence[str] | None, column: int, i: int) -> NoReturn:
    """Say why a value is no join key value of this type."""
    where = place(names, column, i)
    if _is_null(value):
        raise InvalidEntityError(
            "a join key is null", where=where, hint="leave the entity out, or give it a key"
        )
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if key_type == "string" and isinstance(value, str):
        raise InvalidEntityError(f"{shown} is not Unicode text: it holds a lone surrogate", where=where)
    if key_type == "int64" and isinstance(value, int) and not isinstance(value, bool):
        raise InvalidEntityError(
            f"{shown} does not fit int64", where=where, hint="use a string join key for larger ids"
        )
    raise InvalidEntityError(f"{shown} is not a value of type {key_type}", where=where, hint=_HINTS[key_type])


def _is_null(value: object) -> bool:
    if isinstance(value, (float, np.floating)):
        return bool(value != value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def check_columns(
    key_types: Sequence[str], columns: Sequence[object], n: int, names: Sequence[str] | None
) -> list[list[object]]:
    """The columns as lists, all of length n.

    Raises:
        InvalidEntityError: for ragged, missing or surplus columns, or one that holds no scalars.
    """
    if len(columns) != len(key_types):
        raise InvalidEntityError(f"{len(columns)} join key columns were given, the view has {len(key_types)}")
    lists = [as_list(column, place(names, i)) for i, column in enumerate(columns)]
    for i, values in enumerate(lists):
        if len(values) != n:
            raise InvalidEntityError(
                f"{len(values)} values where {n} were expected",
                where=place(names, i),
                hint="every join key needs one value per entity",
            )
    return lists


def as_list(column: object, where: str) -> list[object]:
    """A column's values as Python objects, none of them changed in kind on the way.

    Raises:
        InvalidEntityError: when the column is not one-dimensional, or of a type no key can have
            (numpy would hand out the bare integers of a datetime64[ns]).
    """
    if isinstance(column, list):
        return column
    if isinstance(column, tuple):
        return list(column)
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        if not _key_like(column.type):
            raise InvalidEntityError(f"an Arrow column of {column.type} holds no keys", where=where)
        return column.to_pylist()  # type: ignore[no-any-return]
    if isinstance(column, np.ndarray):
        if column.ndim != 1 or column.dtype.kind not in "iufbOUS":
            raise InvalidEntityError(
                f"a {column.ndim}-dimensional numpy array of {column.dtype} holds no keys", where=where
            )
        return column.tolist()  # type: ignore[no-any-return]
    to_list = getattr(column, "to_list", None)  # of pandas and polars
    if to_list is None:
        raise InvalidEntityError(
            f"a join key column is a list or an array, not {type(column).__name__}", where=where
        )
    values: list[object] = to_list()
    return values


def _key_like(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = ("integer", "floating", "boolean", "string", "large_string", "string_view", "binary",
             "large_binary", "binary_view", "fixed_size_binary", "null")  # fmt: skip
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def decode_key(prefix: bytes, key_types: Sequence[str], key: bytes) -> tuple[object, ...]:
    """The inverse of encode for one key; refuses every spelling encode would not write."""
    if not key.startswith(prefix):
        raise CodecError(f"the key does not start with {prefix!r}", where=f"key {key!r}")
    texts = key[len(prefix) :].split(b"|") if key_types else []
    if len(texts) != len(key_types) or (not key_types and key != prefix):
        raise CodecError(f"the key needs {len(key_types)} parts", where=f"key {key!r}")
    try:
        values = tuple(_value(text, kind) for text, kind in zip(texts, key_types, strict=True))
        parts = [key_text(v, k, None, 0, 0) for v, k in zip(values, key_types, strict=True)]
    except (ValueError, KeyError):
        parts = []
        values = ()
    if parts != texts:
        raise CodecError("the key is not in canonical form", where=f"key {key!r}")
    return values


def _value(text: bytes, key_type: str) -> object:
    if key_type == "int64":
        return int(text)
    if key_type == "bool":
        return {b"t": True, b"f": False}[text]
    plain = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text)
    return plain if key_type == "bytes" else plain.decode()
