"""Bodies of requests: known by their skeleton or not, the twins agree, and what is taken is what parsing gives."""

from __future__ import annotations

from typing import Any

import orjson

from fastserve._native.shapes import ShapeTable
from fastserve.api.shapes_py import ShapeTable as PyShapeTable
from tests.fuzz.sampling import sampled

TEMPLATES = (
    b'{"feature_service": "s", "entities": {"id": [1]}}',
    b'{"entities":{"name":["a"]},"features":["v:f"]}',
    b'{"feature_service": "s", "entities": {"id": [1], "name": ["a"]}}',
)
TYPES = (["int64"], ["string", "string"], ["int64", "string"])
READS: tuple[Any, ...] = ([(b"7:", [0])], [(b"8:", [0]), (b"9:", [0])], [(b"a:", [1, 0]), (b"b:", [0])])


def learned(table: Any) -> Any:
    for i, template in enumerate(TEMPLATES):
        table.add(table.skeleton(template), TYPES[i], READS[i], i)
    return table


TABLE, TWIN = learned(ShapeTable()), learned(PyShapeTable())


def body(data: bytes) -> None:
    """Two bytes choose a template and the place in it where the rest is put; 0xff: the rest is the body."""
    if len(data) < 2:
        return
    template = TEMPLATES[data[0] % len(TEMPLATES)]
    hole = template.index(b"[") + 1
    stop = template.index(b"]")
    text = data[2:] if data[1] == 255 else template[:hole] + data[2:] + template[stop:]
    found = seen(TABLE, text)
    if sampled(data, 8):
        expected = seen(TWIN, text)
        assert found == expected, f"{found}, the twin {expected}"
    if found is not None:
        check_parsed(text, found)


def seen(table: Any, text: bytes) -> Any:
    found = table.match(text)
    return None if found is None else (found[0], found[1].keys(), found[2], table.skeleton(text))


def check_parsed(text: bytes, found: Any) -> None:
    """What parsing the body gives has the same keys."""
    which, keys, n, _ = found
    parsed = list(orjson.loads(text)["entities"].values())
    if which == 1:
        parsed *= 2
    assert all(len(column) == n for column in parsed[: len(TYPES[which])])
    wanted = []
    for prefix, columns in READS[which]:
        wanted += [prefix + b"|".join(str(parsed[c][i]).encode() for c in columns) for i in range(n)]
    assert keys == wanted, f"{keys}, parsing gives {wanted}"
