"""Answers straight from rows, JSON and Arrow: found, missing, corrupt; texts that are none; requests known by shape."""

import numpy as np
import pyarrow as pa

from fastserve._native.shapes import ShapeTable
from fastserve.api.arrow_answer import _Template
from fastserve.api.json_answer import PlanText
from fastserve.batch import ReadBatch
from fastserve.codec.layout import Layout
from fastserve.codec.rows import RowDecoder, RowEncoder
from fastserve.errors import CodecError
from fastserve.serving.plan import OutputColumn, ReadPlan, ViewRead
from fastserve.types import DType
from tests.isolated.meter import run

NATIVES = ("arrow_rows", "json_rows", "shapes")
KEYS, STAMPS = [b"7:a", b"7:b"], np.arange(2)
BODY = b'{"feature_service": "s", "entities": {"id": [%b]}}'


def plan(*kinds: str) -> tuple[ReadPlan, list[bytes]]:
    names, dtypes = tuple(f"f{i}" for i in range(len(kinds))), tuple(map(DType, kinds))
    layout = Layout(1, names, dtypes)
    decoder = RowDecoder({1: layout}, names, {})
    read = ViewRead("v", 1, ("id",), ("int64",), None, None, names, None, decoder)
    outputs = tuple(
        OutputColumn(name, kind, 0, i) for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    )
    values = {"string": ["x" * 60, None], "float32": [1.5, None], "int64": [1, 2]}
    columns = [pa.array(values[kind], {"float32": pa.float32()}.get(kind)) for kind in kinds]
    rows = RowEncoder(layout).encode(KEYS, columns, STAMPS, STAMPS)
    return ReadPlan("svc", 7, outputs, (read,), {"id": "int64"}, "0123456789abcdef"), rows


TEXTS, TEXT_ROWS = plan("string", "float32", "float32", "int64")
NUMBERS, NUMBER_ROWS = plan("float32", "float32", "int64")
KEPT_JSON, KEPT_ARROW = PlanText(TEXTS).native, _Template(NUMBERS, 2).filler
TABLE = ShapeTable()


def filled(rows: list[bytes], kind: int) -> ReadBatch:
    batch = ReadBatch(KEYS)
    batch.fill([rows, [None, rows[1]], [rows[0], rows[1][:-1] + b"!"], [rows[0][:9], None]][kind], 1)
    return batch


def once(i: int) -> None:
    kind = i % 4
    json = PlanText(TEXTS).native if i % 64 == 0 else KEPT_JSON
    arrow = _Template(NUMBERS, 2).filler if i % 64 == 1 else KEPT_ARROW
    for answer in (
        lambda: json.decode(filled(TEXT_ROWS, kind), 2, 50, (None,), b""),
        lambda: arrow.fill(filled(NUMBER_ROWS, kind), 50, (None,)),
    ):
        try:
            assert len(answer()) > 100 and kind < 2
        except CodecError:
            assert kind > 1
    table = ShapeTable() if i % 64 == 2 else TABLE
    table.add(table.skeleton(BODY % b""), ["int64"], [(b"7:", [0])], "plan")
    assert table.match(BODY % b"1, 2,3")[2] == 3 and table.match(BODY % b"1, x") is None
    if i % 3 == 0:
        table.forget(table.skeleton(BODY % b""))


if __name__ == "__main__":
    run(once)
