"""Requests that differ in their keys alone: the readable twin of _ext/shapes.pyx.

    body        {"feature_service": "ranking", "entities": {"user_id": [1, 2, 3], "item_id": ["a", "b", "c"]}}
    holes                                                              1, 2, 3              "a", "b", "c"
    skeleton    {"feature_service": "ranking", "entities": {"user_id": [], "item_id": []}}

A model asks for the same features all day: bodies of one skeleton ask for one plan. What a skeleton asks for is looked
up, and what is left to read are its holes: every list after the member "entities". A hole is taken only where its items
stand in JSON just as they stand in a key: integers of up to 18 digits, texts of plain ASCII. All else is no match, and
goes the general way, which alone says what is wrong.

A skeleton is known only once its holes were seen to be the entity columns (shapes.py): a body of the same skeleton is
then the same JSON with other lists.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from fastserve.api.wire import MAX_ENTITIES
from fastserve.batch.batch_py import ReadBatch

T = TypeVar("T")

MAX_COLUMNS: Final = 8
MAX_SKELETON: Final = 4_096
MAX_BODY: Final = 1 << 20

_HOLE: Final = re.compile(rb"\[([^]]*)\]")
_ITEMS: Final = {
    "int64": re.compile(rb"-?[1-9][0-9]{0,17}|0"),
    "string": re.compile(rb'"[^\x00-\x1f\x7f-\xff"\\%|]*"'),
}
_BLANK: Final = b" \n\r\t"


class ShapeTable(Generic[T]):
    """Known skeletons, and what each asks for."""

    def __init__(self) -> None:
        self._shapes: dict[bytes, tuple[tuple[str, ...], tuple[tuple[bytes, tuple[int, ...]], ...], T]] = {}

    def __len__(self) -> int:
        return len(self._shapes)

    def skeleton(self, body: bytes) -> bytes | None:
        """The body without what is in its holes; None where there are none, or too many, or it is too long."""
        parts = _split(body)
        return parts[0] if parts and parts[1] else None

    def add(
        self,
        skeleton: bytes,
        key_types: Sequence[str],
        reads: Sequence[tuple[bytes, Sequence[int]]],
        known: T,
    ) -> None:
        """Bodies of this skeleton are known from now on.

        Args:
            key_types: int64 or string, for each hole in order.
            reads: for each view read, its key prefix and the holes that make its key, in the key's order.
            known: what `match` gives for it.

        Raises:
            ValueError: no, or too many, columns, or one of another type.
        """
        if not 0 < len(key_types) <= MAX_COLUMNS:
            raise ValueError(f"{len(key_types)} key columns: 1 to {MAX_COLUMNS}")
        for key_type in key_types:
            if key_type not in _ITEMS:
                raise ValueError(f"{key_type} keys have no shape")
        kept = tuple((bytes(prefix), tuple(columns)) for prefix, columns in reads)
        for _, columns in kept:
            if any(not 0 <= c < len(key_types) for c in columns):
                raise ValueError(f"columns {columns} of {len(key_types)}")
        self._shapes[skeleton] = (tuple(key_types), kept, known)

    def forget(self, skeleton: bytes) -> None:
        """A skeleton is not known any more."""
        self._shapes.pop(skeleton, None)

    def match(self, body: bytes) -> tuple[T, ReadBatch, int] | None:
        """What is known of the body's skeleton, its encoded keys and the number of entities; None for no match."""
        parts = _split(body)
        shape = self._shapes.get(parts[0]) if parts else None
        if parts is None or shape is None or len(parts[1]) != len(shape[0]):
            return None
        key_types, reads, known = shape
        columns = [_items(hole, kind) for hole, kind in zip(parts[1], key_types, strict=True)]
        if None in columns or len({len(column or ()) for column in columns}) != 1:
            return None
        n = len(columns[0] or ())
        batch = ReadBatch()
        for prefix, picks in reads:
            for i in range(n):
                batch.add(prefix + b"|".join((columns[c] or [])[i] for c in picks))
        return known, batch, n


def _split(body: bytes) -> tuple[bytes, list[bytes]] | None:
    """(skeleton, holes)."""
    start = body.find(b'"entities"')
    if start < 0 or len(body) > MAX_BODY:
        return None
    holes = _HOLE.findall(body, start)
    skeleton = body[:start] + _HOLE.sub(b"[]", body[start:])
    if b"[" in skeleton[start:].replace(b"[]", b"") or len(holes) > MAX_COLUMNS:
        return None
    return (skeleton, holes) if len(skeleton) <= MAX_SKELETON else None


def _items(hole: bytes, key_type: str) -> list[bytes] | None:
    """The items of a list as they stand in a key; None where one does not."""
    found = [item.strip(_BLANK) for item in hole.split(b",")]
    if key_type == "string" and len(found) > 1:
        found = _texts(hole)
    if len(found) > MAX_ENTITIES or not all(_ITEMS[key_type].fullmatch(item) for item in found):
        return None
    return [item.strip(b'"') for item in found]


def _texts(hole: bytes) -> list[bytes]:
    """Split at commas that are not inside a text."""
    parts = re.findall(rb'"[^"]*"|,|[^",]+', hole)
    items, last = [], b""
    for part in parts:
        if part == b",":
            items.append(last.strip(_BLANK))
            last = b""
        else:
            last += part
    return [*items, last.strip(_BLANK)]
